"""The scheduler: what it costs on large fleets. `sched-event-growth` draws build/sched-event-growth.svg."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import log
from pathlib import Path

import numpy as np

from benchmarks._schedule import asks, busy_fleet, day, shapes
from benchmarks.registry import benchmark
from midstep.model.tiers import Tier
from midstep.policy.asks import Ask, Quota
from midstep.policy.plan import Start, Suspend
from midstep.policy.scheduler import Scheduler
from midstep.sim.catalogue import prepare

SEED = 7
LEAST_S = 5.0  # of processor, so that small fleets' figures are steady
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)  # devices
CLUSTER = 2_500  # devices, or what there is
PLOT = Path(__file__).resolve().parent.parent / "build" / "sched-event-growth.svg"


@dataclass(frozen=True, slots=True)
class Day:
    """One simulated day of a fleet: its devices, what it took of a processor, in seconds, and submissions
    and ends in it."""

    devices: int
    took_s: float
    events: int

    @property
    def each_s(self) -> float:
        """Of an event: the decisions, the books, and whether anything idles."""
        return self.took_s / self.events


@cache
def a_day(devices: int) -> Day:
    """Two jobs a device, somewhat more than it can do; clusters alike, in up to five regions."""
    jobs, nodes = 2 * devices, devices // 8
    trace, fleet = day(jobs, nodes, random.Random(SEED), clusters=max(1, round(devices / CLUSTER)))
    runs: list[float] = []
    while sum(runs) < LEAST_S:
        begun = time.process_time()
        prepare(fleet, trace, "midstep", seed=SEED).run()
        runs.append(time.process_time() - begun)
    found = Day(devices, sum(runs) / len(runs), 2 * jobs)
    _say(
        f"{devices} devices: {found.events} events in {found.took_s:.1f} s, {found.each_s * 1e6:.0f} us each"
    )
    return found


@benchmark("sim-100k", bar=600.0, unit="s", against="100,000 devices, a day, 200,000 jobs, processor time")
def sim_100k() -> list[float]:
    return [a_day(100_000).took_s]


@benchmark(
    "sched-event-growth",
    bar=1.0,
    unit="x",
    against="cost of an event, growing as the logarithm of the fleet from 1,000 to 100,000 devices; worst",
)
def event_growth() -> list[float]:
    days = [a_day(devices) for devices in SIZES]
    plot(days, PLOT)
    _say(f"plot: {PLOT}")
    return [max(it.each_s / _bound(days[0], it.devices) for it in days[1:])]


def _bound(first: Day, devices: int) -> float:
    return first.each_s * log(devices) / log(first.devices)


def plot(days: list[Day], path: Path) -> None:
    """Cost of an event over devices: measured, and were it the logarithm's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    devices = [it.devices for it in days]
    bound = [_bound(days[0], n) * 1e3 for n in devices]
    axes.plot(devices, bound, "^--", label="bound: as the logarithm of the devices")
    axes.plot(devices, [it.each_s * 1e3 for it in days], "o-", label="measured")
    axes.set(
        xscale="log",
        xlabel="devices, in clusters of 2,500",
        ylabel="processor time of an event, ms",
        title="A day of two jobs a device, offered load 1.1",
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


@cache
def _large(quotas: bool = False) -> dict[str, float]:
    """A fleet of 100,160 devices in 40 clusters with 20,000 jobs waiting: seconds, and bytes of memory.
    ``quotas``: each of its 50 projects has one, half of them less than they use."""
    scheduler, now_s, more = busy_fleet(20_000, random.Random(SEED))
    _say(f"{sum(job.runs for job in scheduler.jobs.values())} jobs run")
    for number in range(50 if quotas else 0):
        scheduler.quota(f"team{number}", Quota(2500.0 if number % 2 else 1000.0))
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
    # The most that this process ever had, whatever ran before in it: what it grew by would be too little.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "pass": float(np.percentile(passes, 99)),
        "region": float(np.percentile(regions, 99)),
        "event": float(np.percentile(events, 99)),
        "bytes": peak * 1024.0,
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


@benchmark("sched-event-quotas", bar=0.005, unit="s", against="the same, with quotas and fair shares")
def event_with_quotas() -> list[float]:
    return [_large(quotas=True)["event"]]


@benchmark("sched-memory", bar=2.0, unit="GB", against="the most that a process with such a fleet takes")
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
