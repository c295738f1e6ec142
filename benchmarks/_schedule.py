"""Large fleets for the scheduler's benchmarks, made up from a seed: sizes and durations as in Philly's trace
(most jobs small and short, most of the work in few)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from midstep.model.tiers import Tier
from midstep.policy.asks import Ask, NodeShape
from midstep.policy.scheduler import Scheduler
from midstep.sim.fleet import Fleet, SimNode
from midstep.sim.trace import Job, Trace, in_order

SIZES = ((1, 0.62), (2, 0.12), (4, 0.12), (8, 0.09), (16, 0.04), (64, 0.01))
TIERS = ((Tier.PREMIUM, 0.2), (Tier.STANDARD, 0.3), (Tier.BASIC, 0.5))
REGIONS, CLUSTERS, NODES = 5, 8, 313  # of eight devices each: 100,160


def shapes(regions: int = REGIONS, clusters: int = CLUSTERS, nodes: int = NODES) -> Iterator[NodeShape]:
    """A fleet of equal nodes, eight to a rack."""
    for region in range(regions):
        for cluster in range(clusters):
            for node in range(nodes):
                name = f"r{region}-c{cluster}-n{node}"
                yield NodeShape(
                    name, f"r{region}", f"r{region}-c{cluster}", "gpu", 8, f"{region}.{cluster}.{node // 8}"
                )


def asks(chance: random.Random, sizes: tuple[tuple[int, float], ...] = SIZES) -> Iterator[Ask]:
    """Jobs without end."""
    counts, shares = [n for n, _ in sizes], [share for _, share in sizes]
    tiers, weights = [tier for tier, _ in TIERS], [share for _, share in TIERS]
    number = 0
    while True:
        number += 1
        tier = chance.choices(tiers, weights)[0]
        devices = chance.choices(counts, shares)[0]
        yield Ask(
            f"j{number}",
            devices,
            tier=tier,
            project=f"team{number % 50}",
            or_basic=True,
            snapshot_bytes=10**9,
        )


def busy_fleet(waiting: int, chance: random.Random) -> tuple[Scheduler, float, Iterator[Ask]]:
    """A fleet that has been in use for two days, with so many jobs waiting; what time it is, and more
    jobs."""
    scheduler, now_s = Scheduler(), 0.0
    for shape in shapes():
        scheduler.node_joined(shape)
    more = asks(chance)
    scheduler.decide(now_s)
    count = 0
    while count < waiting:
        for _ in range(500):
            scheduler.submit(now_s, next(more))
        now_s += 1500.0
        scheduler.decide(now_s)
        count = sum(not job.runs for job in scheduler.jobs.values())
    scheduler.check()
    return scheduler, now_s, more


def day(
    jobs: int, devices_x8: int, chance: random.Random, load: float = 1.1, clusters: int = REGIONS * CLUSTERS
) -> tuple[Trace, Fleet]:
    """One day of so many jobs, for a fleet of so many nodes in so many clusters."""
    counts, shares = [n for n, _ in SIZES], [share for _, share in SIZES]
    raw = [
        (chance.randrange(86_400), chance.choices(counts, shares)[0], chance.lognormvariate(7.0, 2.0))
        for _ in range(jobs)
    ]
    asked = sum(size * min(took, 500_000.0) for _, size, took in raw)
    scale = load * devices_x8 * 8 * 86_400 / asked
    made = [
        Job(0, f"j{n}", at_s, max(1, int(min(took, 500_000.0) * scale)), size)
        for n, (at_s, size, took) in enumerate(raw)
    ]
    regions = min(REGIONS, clusters)
    nodes = [
        SimNode(f"n{n}", f"c{cluster}", "gpu", 8, f"r{cluster * regions // clusters}", f"rack{n // 8}")
        for n in range(devices_x8)
        for cluster in (n * clusters // devices_x8,)
    ]
    return Trace("day", in_order(made)), Fleet(tuple(nodes))
