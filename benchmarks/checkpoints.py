"""What checkpoints cost a running job: the pause of one against a full suspend and resume, and the steps that
are lost to them at the interval that Midstep chooses. The job: DDP on 2 ranks, 25 M parameters, Adam; vaults
in memory, so that it is not the disk that is measured.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from itertools import pairwise

from benchmarks._fleet import BOUND_S, fleet, log, submit, wait
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import CheckpointRule, JobView

STEP_AT = re.compile(r"^step \d+ loss \S+ at (\S+)$", re.MULTILINE)
ARGUMENTS = ("--params", "large", "--optimizer", "adam", "--print-steps", "--steps", "100000")
ROUNDS = 7
STEADY_ROUNDS = 3
NEAR_S = 10.0
WARM_STEPS = 5


@benchmark("checkpoint-pause", bar=0.35, unit="x", against="suspending and at once resuming the same job")
def checkpoint_pause() -> list[float]:
    """Ratios of the two, in turns; the first round warms the caches."""
    with fleet(vaults_in_memory=True) as client:
        job = submit(client, "ddp.py", *ARGUMENTS, ranks=2, checkpoints=CheckpointRule(off=True))
        _steps(client, job, WARM_STEPS)
        found: list[float] = []
        for _ in range(ROUNDS + 1):
            full_s = _gap_s(client, job, _suspend_and_resume)
            pause_s = _gap_s(client, job, _checkpoint)
            print(f"  pause {pause_s:.2f} s, suspend and resume {full_s:.2f} s", file=sys.stderr)
            found.append(pause_s / full_s)
        return found[1:]


@benchmark("checkpoint-cost", bar=1.02, unit="x", against="the same job's steps without checkpoints")
def checkpoint_cost() -> list[float]:
    """Time by step over whole intervals with their checkpoint, as often as the measured pause permits,
    against the steps between checkpoints."""
    with fleet(vaults_in_memory=True) as client:
        rule = CheckpointRule(min_s=1, max_s=1)  # always as often as its cost permits
        job = submit(client, "ddp.py", *ARGUMENTS, ranks=2, checkpoints=rule)
        _steps(client, job, WARM_STEPS)
        _checkpoint(client, job)
        _checkpoint(client, job)
        begun = [_next_checkpoint(client, job) for _ in range(STEADY_ROUNDS + 1)]
        every_s = client.job(job.job_id).checkpoints.every_s
        print(f"  every {every_s or 0:.0f} s", file=sys.stderr)
        times = _times(client, job)
        return [_interval_cost(times, one, next_) for one, next_ in pairwise(begun)]


def _interval_cost(times: list[float], begun: float, ended: float) -> float:
    """From the beginning of one checkpoint to that of the next. What it costs shows in the steps that it
    falls into and in those of the seconds after it, in which it is stored."""
    gaps = [(at, after - at) for at, after in pairwise(times) if begun <= after <= ended]
    near = [gap for at, gap in gaps if at < begun + NEAR_S]
    plain = statistics.mean(gap for at, gap in gaps if at >= begun + NEAR_S)
    lost_s = sum(near) - len(near) * plain
    print(f"  {ended - begun:.0f} s seen, {lost_s:.2f} s lost", file=sys.stderr)
    return 1 + lost_s / (ended - begun - lost_s)


def _next_checkpoint(client: FleetClient, job: JobView) -> float:
    """When the next one that goes well begins."""
    known = {move.started_s for move in client.job(job.job_id).moves}

    def another(view: JobView) -> bool:
        return any(_is_checkpoint(move) and move.started_s not in known for move in view.moves)

    view = client.wait(job.job_id, another, BOUND_S)
    return max(move.started_s for move in view.moves if _is_checkpoint(move))


def _is_checkpoint(move: object) -> bool:
    return getattr(move, "kind", "") == "checkpoint" and bool(getattr(move, "ok", False))


def _gap_s(client: FleetClient, job: JobView, disturb: object) -> float:
    """How much longer than usual the longest time between two steps is while something is done to the job."""
    before = _steps(client, job, WARM_STEPS)
    assert callable(disturb)
    disturb(client, job)
    _steps(client, job, WARM_STEPS)
    times = [at for at in _times(client, job) if at >= before]
    gaps = [after - earlier for earlier, after in pairwise(times)]
    return max(gaps) - statistics.median(gaps)


def _suspend_and_resume(client: FleetClient, job: JobView) -> None:
    client.suspend(job.job_id)
    client.wait(job.job_id, lambda view: view.state == "suspended", BOUND_S)
    client.resume(job.job_id)
    wait(client, job, "running")


def _checkpoint(client: FleetClient, job: JobView) -> None:
    taken = client.job(job.job_id).snapshot
    client.checkpoint(job.job_id)
    client.wait(job.job_id, lambda view: view.snapshot != taken, BOUND_S)


def _steps(client: FleetClient, job: JobView, count: int) -> float:
    """Wait for so many more steps; the time of the last."""
    there = len(_times(client, job))
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        times = _times(client, job)
        if len(times) >= there + count:
            return times[-1]
        time.sleep(0.1)
    raise RuntimeError(f"{job.job_id} does not go on")


def _times(client: FleetClient, job: JobView) -> list[float]:
    return [float(at) for at in STEP_AT.findall(log(client, job))]
