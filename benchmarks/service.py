"""What suspending and resuming a job costs through the whole service (request, controller, agent, vault,
killing, reporting back), against the bare `criu` command line on the same program, in turns (`suspend` says
under which conditions).
"""

from __future__ import annotations

import time
from functools import cache

from benchmarks._fleet import fleet, log, submit, wait
from benchmarks.registry import benchmark
from benchmarks.suspend import Bare, scratch_folder
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView

RUNS = 7
_TIDY_S = 1.5  # a moment after a suspend the service removes the snapshot before
Pair = tuple[float, float]  # ours, raw; seconds


@benchmark(
    "suspend-service", bar=1.15, unit="x", against="raw `criu dump`; a training script, 2 DataLoader workers"
)
def suspend_service() -> list[float]:
    """From the request until the devices are free."""
    return [ours / raw for (ours, raw), _ in _runs()]


@benchmark(
    "resume-service",
    bar=1.15,
    unit="x",
    against="raw `criu restore`; a training script, 2 DataLoader workers",
)
def resume_service() -> list[float]:
    """From the request until the job runs."""
    return [ours / raw for _, (ours, raw) in _runs()]


@cache
def _runs() -> list[tuple[Pair, Pair]]:
    found: list[tuple[Pair, Pair]] = []
    with scratch_folder() as scratch, fleet(vaults_in_memory=True) as client:
        bare = Bare(scratch / "bare")
        bare.start()
        try:
            job = wait(client, submit(client, "adam.py", ranks=1), "running")
            while "ready" not in log(client, job):
                time.sleep(0.2)
            for _ in range(RUNS + 1):
                with bare.paused():
                    ours = _suspended_s(client, job)
                    time.sleep(_TIDY_S)
                raw = bare.dump()
                raw_restore = bare.restore()
                with bare.paused():
                    ours_restore = _resumed_s(client, job)
                found.append(((ours, raw), (ours_restore, raw_restore)))
        finally:
            bare.end()
    return found[1:]  # the first one warms the caches


def _suspended_s(client: FleetClient, job: JobView) -> float:
    client.suspend(job.job_id)
    return wait(client, job, "suspended").moves[-1].duration_s


def _resumed_s(client: FleetClient, job: JobView) -> float:
    client.resume(job.job_id)
    return wait(client, job, "running").moves[-1].duration_s
