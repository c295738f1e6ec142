"""The scheduler: what it does for jobs, against its rivals on public traces.

The traces are not in the repository. `MIDSTEP_TRACES` names a folder with them: `philly.parquet` and
`itp.parquet` (docs/replay-a-trace.md says what columns a trace has) and `cluster/philly_machines.csv`.
Without it these benchmarks are skipped. Philly's jobs count from second 3,600,000 on, when traffic begins;
any job may have devices of either type. Of ITP no capacity was published: each of its clusters has as many
devices as its jobs asked for, on average.

The runs take place one after the other, each once, a quarter of an hour in all; `python -m
benchmarks.scheduler` prints all their figures, `python -m benchmarks.scheduler 2.0 midstep srtf` of some
(`itp`: of our policy on that trace).
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.registry import Skip, benchmark
from midstep.sim.catalogue import prepare
from midstep.sim.fleet import Fleet, SimNode, alike, offered_load
from midstep.sim.fleetfile import read_fleet
from midstep.sim.formats import read_trace
from midstep.sim.metrics import Summary, summary
from midstep.sim.trace import Trace, between, under_load

FROM_S = 3_600_000
# Philly's trace as it was offers 0.71 of the fleet's devices: submitted 1.413 times as fast it is 1.0.
LOADS = (1.0, 1.413, 2.0)
SEED = 7


def _folder() -> Path:
    folder = os.environ.get("MIDSTEP_TRACES")
    if not folder:
        raise Skip("MIDSTEP_TRACES names no folder with traces (benchmarks/scheduler.py)")
    return Path(folder)


@cache
def philly() -> tuple[Trace, Fleet]:
    """Skip: the traces are not here."""
    trace = read_trace(_folder() / "philly.parquet")
    jobs = tuple(replace(job, cluster="", device_types=()) for job in trace.jobs)
    return replace(trace, jobs=jobs), read_fleet(_folder() / "cluster" / "philly_machines.csv")


@cache
def itp() -> tuple[Trace, Fleet]:
    """Nodes of eight devices, or of one where no job asks for more. Skip: the traces are not here."""
    trace = read_trace(_folder() / "itp.parquet")
    span_s = trace.jobs[-1].submit_s - trace.jobs[0].submit_s
    asked: dict[str, float] = {}
    largest: dict[str, int] = {}
    for job in trace.jobs:
        asked[job.cluster] = asked.get(job.cluster, 0.0) + job.devices * job.duration_s / span_s
        largest[job.cluster] = max(largest.get(job.cluster, 0), job.devices)
    nodes: list[SimNode] = []
    for cluster, devices in sorted(asked.items()):
        each = min(8, largest[cluster])
        nodes += alike(cluster, max(-(-largest[cluster] // each), round(devices / each)), each)
    return trace, Fleet(tuple(nodes))


@cache
def run(policy: str, load: float, on: str = "philly") -> Summary:
    """One run."""
    trace, fleet = itp() if on == "itp" else philly()
    loaded = under_load(trace if on == "itp" else between(trace, FROM_S, None), load)
    begun = time.process_time()
    core = prepare(fleet, loaded, policy, seed=SEED)
    outcome = core.run()
    core.check()
    took_s = time.process_time() - begun
    found = summary(outcome)
    _say(
        f"{policy} on {on} at load {load:g} (offered {offered_load(fleet, loaded):.2f}): "
        f"mean JCT {found.jct.mean_s:.0f} s"
    )
    _say(
        f"  premium waits {found.wait_by_tier['premium'].p99_s:.0f} s (p99), lost {found.lost_share:.3%}, "
        f"idle {found.idle_fit_share:.3%}, {found.stops} stops, {found.moves} moves, "
        f"{took_s:.0f} s of processor"
    )
    for tier, kept in found.kept.items():
        _say(f"  {tier}: {kept}")
    return found


def _against(rival: str) -> list[float]:
    """Over all jobs of all loads."""
    pairs = [(run("midstep", load).jct.mean_s, run(rival, load).jct.mean_s) for load in LOADS]
    for load, (ours, theirs) in zip(LOADS, pairs):
        _say(f"load {load:g}: {ours / theirs:.3f} of {rival}")
    return [sum(ours for ours, _ in pairs) / sum(theirs for _, theirs in pairs)]


def _ours() -> list[Summary]:
    """On both traces."""
    return [run("midstep", load, on) for on in ("philly", "itp") for load in LOADS]


@benchmark("sched-jct-fifo", bar=0.50, unit="x", against="mean JCT under FIFO in static partitions by group")
def jct_fifo() -> list[float]:
    return _against("static")


@benchmark("sched-jct-restart", bar=0.70, unit="x", against="mean JCT under preempt-and-restart, as in Kueue")
def jct_restart() -> list[float]:
    return _against("restart")


@benchmark("sched-jct-srtf", bar=1.10, unit="x", against="mean JCT under SRTF, which knows every duration")
def jct_srtf() -> list[float]:
    return _against("srtf")


@benchmark("sched-premium-wait", bar=60.0, unit="s", against="p99 of what premium jobs wait, worst load")
def premium_wait() -> list[float]:
    return [max(run("midstep", load).wait_by_tier["premium"].p99_s for load in LOADS)]


@benchmark("sched-moves", bar=0.01, unit="", against="share of device time lost to moves, worst run")
def moves() -> list[float]:
    return [max(found.lost_share for found in _ours())]


@benchmark("sched-idle", bar=0.001, unit="", against="share of device time idle while a job fits, worst run")
def idle() -> list[float]:
    return [max(found.idle_fit_share for found in _ours())]


@benchmark("sched-guarantees", bar=0.0, unit="jobs", against="under their guarantee while it could be kept")
def guarantees() -> list[float]:
    return [sum(kept.avoidable for found in _ours() for kept in found.kept.values())]


@benchmark(
    "sim-philly", bar=60.0, unit="s", against="the whole Philly trace under our policy, processor time"
)
def sim_philly() -> list[float]:
    trace, fleet = philly()
    begun = time.process_time()
    prepare(fleet, trace, "midstep", seed=SEED).run()
    return [time.process_time() - begun]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    loads = [float(word) for word in sys.argv[1:] if word[0].isdigit()] or list(LOADS)
    policies = [word for word in sys.argv[1:] if not word[0].isdigit()] or [
        "midstep",
        "itp",
        "srtf",
        "restart",
        "static",
    ]
    for one in policies:
        for at in loads:
            if one == "itp":
                run("midstep", at, one)
            else:
                run(one, at)
