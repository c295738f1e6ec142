"""The scheduler: what it does for jobs, against its rivals on public traces, and what it costs on large
fleets.

The traces are not in the repository. `MIDSTEP_TRACES` names a folder with them: `philly.parquet`
(docs/replay- a-trace.md says what columns a trace has) and `cluster/philly_machines.csv`. Without it those
benchmarks are skipped. Jobs count from second 3,600,000 on, when traffic begins; any job may have devices
of either type.

The runs take place one after the other, each once, half an hour in all; `python -m benchmarks.scheduler`
prints all their figures, `python -m benchmarks.scheduler 2.0 midstep srtf` of some.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks._schedule import asks, busy_fleet, day, shapes
from benchmarks.registry import Skip, benchmark
from midstep.model.tiers import Tier
from midstep.policy.asks import Ask
from midstep.policy.plan import Start, Suspend
from midstep.policy.scheduler import Scheduler
from midstep.sim.catalogue import prepare
from midstep.sim.fleet import Fleet, offered_load
from midstep.sim.fleetfile import read_fleet
from midstep.sim.formats import read_trace
from midstep.sim.metrics import Summary, summary
from midstep.sim.trace import Trace, between, under_load

FROM_S = 3_600_000
# The trace as it was offers 0.71 of the fleet's devices: submitted 1.413 times as fast it is 1.0.
LOADS = (1.0, 1.413, 2.0)
SEED = 7


@cache
def philly() -> tuple[Trace, Fleet]:
    """Skip: the traces are not here."""
    folder = os.environ.get("MIDSTEP_TRACES")
    if not folder:
        raise Skip("MIDSTEP_TRACES names no folder with philly.parquet and cluster/philly_machines.csv")
    trace = read_trace(Path(folder) / "philly.parquet")
    jobs = tuple(replace(job, cluster="", device_types=()) for job in trace.jobs)
    return replace(trace, jobs=jobs), read_fleet(Path(folder) / "cluster" / "philly_machines.csv")


@cache
def run(policy: str, load: float) -> Summary:
    """One run on Philly."""
    trace, fleet = philly()
    loaded = under_load(between(trace, FROM_S, None), load)
    begun = time.process_time()
    core = prepare(fleet, loaded, policy, seed=SEED)
    outcome = core.run()
    core.check()
    took_s = time.process_time() - begun
    found = summary(outcome)
    _say(
        f"{policy} at load {load:g} (offered {offered_load(fleet, loaded):.2f}): "
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


@benchmark("sched-moves", bar=0.01, unit="", against="share of device time lost to moves, worst load")
def moves() -> list[float]:
    return [max(run("midstep", load).lost_share for load in LOADS)]


@benchmark("sched-idle", bar=0.001, unit="", against="share of device time idle while a job fits, worst load")
def idle() -> list[float]:
    return [max(run("midstep", load).idle_fit_share for load in LOADS)]


@benchmark("sched-guarantees", bar=0.0, unit="jobs", against="under their guarantee while it could be kept")
def guarantees() -> list[float]:
    return [sum(kept.avoidable for load in LOADS for kept in run("midstep", load).kept.values())]


@benchmark(
    "sim-philly", bar=60.0, unit="s", against="the whole Philly trace under our policy, processor time"
)
def sim_philly() -> list[float]:
    trace, fleet = philly()
    begun = time.process_time()
    prepare(fleet, trace, "midstep", seed=SEED).run()
    return [time.process_time() - begun]


@benchmark("sim-100k", bar=600.0, unit="s", against="100,000 devices, a day, 200,000 jobs, processor time")
def sim_100k() -> list[float]:
    trace, fleet = day(200_000, 12_500, random.Random(SEED))
    begun = time.process_time()
    outcome = prepare(fleet, trace, "midstep", seed=SEED).run()
    took_s = time.process_time() - begun
    _say(f"{outcome.moments} moments in {took_s:.0f} s: {took_s / outcome.moments * 1e3:.2f} ms each")
    return [took_s]


@cache
def _large() -> dict[str, float]:
    """A fleet of 100,160 devices in 40 clusters with 20,000 jobs waiting: seconds, and bytes of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scheduler, now_s, more = busy_fleet(20_000, random.Random(SEED))
    _say(f"{sum(job.runs for job in scheduler.jobs.values())} jobs run")
    passes: list[float] = []
    regions: list[float] = []
    for number in range(20):
        now_s += 60.0
        passes.append(_timed(lambda at_s=now_s: scheduler.full_pass(at_s)))
        regions.append(_timed(lambda at_s=now_s, n=number: scheduler.full_pass(at_s, f"r{n % 5}")))
    events: list[float] = []
    chance = random.Random(SEED + 1)
    running = sorted(job_id for job_id, job in scheduler.jobs.items() if job.runs)
    for number in range(3000):
        now_s += 1.0
        if number % 2:
            ask = next(more)
            events.append(
                _timed(lambda a=ask, at_s=now_s: (scheduler.submit(at_s, a), scheduler.decide(at_s)))
            )
        else:
            job_id = running.pop(chance.randrange(len(running)))
            events.append(
                _timed(lambda j=job_id, at_s=now_s: (scheduler.ended(at_s, j), scheduler.decide(at_s)))
            )
    scheduler.check()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "pass": float(np.percentile(passes, 99)),
        "region": float(np.percentile(regions, 99)),
        "event": float(np.percentile(events, 99)),
        "bytes": grown * 1024.0,
    }


@benchmark("sched-pass", bar=1.0, unit="s", against="p99 of a full pass over 100,160 devices, 50,000 jobs")
def full_pass() -> list[float]:
    return [_large()["pass"]]


@benchmark("sched-pass-region", bar=0.25, unit="s", against="p99 of a full pass over one of its five regions")
def full_pass_region() -> list[float]:
    return [_large()["region"]]


@benchmark("sched-event", bar=0.005, unit="s", against="p99 of a submission or an end, with the decision")
def event() -> list[float]:
    return [_large()["event"]]


@benchmark("sched-memory", bar=2.0, unit="GB", against="what such a fleet takes")
def memory() -> list[float]:
    return [_large()["bytes"] / 1e9]


@benchmark(
    "sched-admission",
    bar=2000.0,
    unit="1/s",
    against="gangs started a second; 50,000 waiting, 12,500 nodes, a class that cannot be placed ahead",
    better="higher",
)
def admission() -> list[float]:
    """Gangs of 8 come and go; ahead of them wait some that want more together than there is free."""
    scheduler, chance = Scheduler(), random.Random(SEED)
    for shape in shapes(1, 40, 313):
        scheduler.node_joined(shape)
    more = asks(chance, ((8, 1.0),))
    clusters = 40
    for number in range(clusters):  # one device of each cluster is taken for good: spread by what is free
        scheduler.submit(0.0, Ask(f"firm{number}", 1, tier=Tier.PREMIUM))
        scheduler.decide(0.0)
    size = 313 * 8
    for number in range(clusters):
        scheduler.submit(0.0, Ask(f"full{number}", size, tier=Tier.BASIC, least=size))
    for _ in range(62_560):
        ask = next(more)
        scheduler.submit(0.0, replace(ask, tier=Tier.BASIC, least=8))
    now_s, started, running = 1.0, 0, set[str]()
    while started < 12_000:
        started += _started(scheduler, now_s, running)
        now_s += 1.0
    begun, started = time.process_time(), 0
    while time.process_time() - begun < 10.0:
        for job_id in chance.sample(sorted(running), 100):
            running.remove(job_id)
            scheduler.ended(now_s, job_id)
            scheduler.submit(now_s, replace(next(more), tier=Tier.BASIC, least=8))
        started += _started(scheduler, now_s, running)
        now_s += 1.0
    took_s = time.process_time() - begun
    scheduler.check()
    return [started / took_s]


def _started(scheduler: Scheduler, now_s: float, running: set[str]) -> int:
    count = 0
    for action in scheduler.decide(now_s).actions:
        if isinstance(action, Start):
            running.add(action.job_id)
            count += 1
        elif isinstance(action, Suspend):
            running.discard(action.job_id)
    return count


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    loads = [float(word) for word in sys.argv[1:] if word[0].isdigit()] or list(LOADS)
    policies = [word for word in sys.argv[1:] if not word[0].isdigit()] or [
        "midstep",
        "srtf",
        "restart",
        "static",
    ]
    for one in policies:
        for at in loads:
            run(one, at)
