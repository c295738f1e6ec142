"""Figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.model.tiers import Tier
from midstep.sim.guarantees import Kept, Shortfall, hour_fraction, kept, life, under_over_time
from midstep.sim.outcome import Outcome, Timeline
from midstep.sim.record import Record
from midstep.sim.tables import Cell

Floats = NDArray[np.float64]
POINTS = 400  # of a curve


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the jobs' times, in seconds."""

    count: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """All zero where there are none."""
        if not values:
            return Spread(0, 0.0, 0.0, 0.0, 0.0)
        found = np.asarray(values, dtype=np.float64)
        p50, p95, p99 = (float(x) for x in np.percentile(found, (50, 95, 99)))
        return Spread(len(values), float(found.mean()), p50, p95, p99)


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in figures. Device hours: ``held`` by jobs; of these ``useful`` (they made progress that
    lasted) and ``lost`` (restarts, moves, checkpoints, work done again); ``idle``: free, between the first
    submission and the last one, ``idle_fit``: of these, in clusters where a waiting job fitted then (all that
    were free there, were it only for one device; a job fits if the placement would give it devices), and its
    share of all device time of that span. ``utilisation``: over the same span. ``cost``: of all devices until
    the last job ended, ``useful_cost`` of the useful ones; in the money of FLEET.yaml, or in device hours."""

    jobs: int
    refused: int
    jct: Spread
    wait: Spread
    wait_by_tier: dict[str, Spread]
    jct_by_tier: dict[str, Spread]
    kept: dict[str, Kept]  # by tier
    makespan_s: int
    utilisation: float
    held_h: float
    useful_h: float
    lost_h: float
    idle_h: float
    idle_fit_h: float
    idle_fit_share: float
    stops: int
    moves: int
    cuts: int
    cost: float
    useful_cost: float

    @property
    def moves_per_job(self) -> float:
        """How often a job was stopped, moved or cut off, on average."""
        return (self.stops + self.moves + self.cuts) / self.jobs if self.jobs else 0.0

    @property
    def lost_share(self) -> float:
        """Of the device time that jobs held."""
        return self.lost_h / self.held_h if self.held_h else 0.0


@dataclass(frozen=True, slots=True)
class Curves:
    """For charts. Over time: hours since the first submission, devices in use and waited for (means over
    equal steps), jobs ``under`` their guarantee by tier, stops and moves an hour. Over jobs: the share of
    them (0 to 1) that took at most so long."""

    hours: list[float]
    used: list[float]
    waited_for: list[float]
    shares: list[float]
    jct_s: list[float]
    wait_s: dict[str, list[float]]  # by tier
    under: dict[str, list[float]]  # by tier
    disturbed: list[float]


def done(outcome: Outcome) -> list[Record]:
    """The jobs that were admitted."""
    return [record for record in outcome.records if not record.refused]


def summary(outcome: Outcome) -> Summary:
    """See `Summary`."""
    return figures(outcome)[0]


def figures(outcome: Outcome) -> tuple[Summary, Curves]:
    """Both, with what they have in common found out once."""
    tiers, short = kept(outcome)
    return _summary(outcome, tiers), _curves(outcome, short)


def _summary(outcome: Outcome, tiers: dict[str, Kept]) -> Summary:
    records, line = done(outcome), outcome.timeline
    first, last, end = _span(records)
    held = sum(record.held_device_s for record in records)
    lost = sum(record.lost_device_s for record in records)
    devices, edges = outcome.fleet.devices, np.array([first, last], dtype=np.float64)
    used, there, idle = (float(_area(line, v, edges)[0]) for v in (line.used, line.there, line.idle))
    price = sum(outcome.fleet.price(node.device_type) * node.devices for node in outcome.fleet.nodes)
    return Summary(
        jobs=len(records),
        refused=len(outcome.records) - len(records),
        jct=Spread.of([record.jct_s for record in records]),
        wait=Spread.of([record.wait_s for record in records]),
        wait_by_tier=_by_tier(records, lambda record: record.wait_s),
        jct_by_tier=_by_tier(records, lambda record: record.jct_s),
        kept=tiers,
        makespan_s=end - first,
        utilisation=used / there if there else 0.0,
        held_h=held / 3600,
        useful_h=(held - lost) / 3600,
        lost_h=lost / 3600,
        idle_h=(there - used) / 3600,
        idle_fit_h=idle / 3600,
        idle_fit_share=idle / there if there else 0.0,
        stops=sum(record.stops for record in records),
        moves=sum(record.moves for record in records),
        cuts=sum(record.cuts for record in records),
        cost=price * (end - first) / 3600,
        useful_cost=price / max(1, devices) * (held - lost) / 3600,
    )


def _curves(outcome: Outcome, short: dict[str, list[Shortfall]]) -> Curves:
    records = done(outcome)
    first, _, end = _span(records)
    edges = np.linspace(first, max(end, first + 1), POINTS + 1)
    step_s = (edges[1:] - edges[:-1]).mean()
    shares = np.linspace(0.0, 1.0, POINTS + 1)
    return Curves(
        hours=[round(float(x), 4) for x in (edges[:-1] - first) / 3600],
        used=_rounded(_area(outcome.timeline, outcome.timeline.used, edges) / step_s),
        waited_for=_rounded(_area(outcome.timeline, outcome.timeline.waiting_devices, edges) / step_s),
        shares=_rounded(shares, 4),
        jct_s=_quantiles([record.jct_s for record in records], shares),
        wait_s={
            tier.value: _quantiles([record.wait_s for record in records if record.job.tier is tier], shares)
            for tier in Tier
        },
        under=under_over_time(short, edges),
        disturbed=_rounded(_growth(outcome.timeline, edges) / (step_s / 3600), 4),
    )


def job_table(outcome: Outcome) -> dict[str, list[Cell]]:
    """A row a job, in the order of the trace; times without a value are null."""
    rows = outcome.records

    def column(value: Callable[[Record], Cell], admitted: bool = True) -> list[Cell]:
        return [None if admitted and record.refused else value(record) for record in rows]

    return {
        "job_id": column(lambda r: r.job.job_id, False),
        "cluster": column(lambda r: r.job.cluster, False),
        "group": column(lambda r: r.job.group, False),
        "tier": column(lambda r: r.job.tier.value, False),
        "gpus": column(lambda r: r.job.size, False),
        "submit_s": column(lambda r: r.job.submit_s, False),
        "duration_s": column(lambda r: r.job.duration_s, False),
        "first_s": column(lambda r: r.first_s),
        "end_s": column(lambda r: r.end_s),
        "jct_s": column(lambda r: r.jct_s),
        "wait_s": column(lambda r: r.wait_s),
        "stops": column(lambda r: r.stops),
        "moves": column(lambda r: r.moves),
        "cuts": column(lambda r: r.cuts),
        "hour_fraction": column(lambda r: round(hour_fraction(r), 6)),
        "life_fraction": column(lambda r: round(life(r), 6)),
        "held_device_s": column(lambda r: round(r.held_device_s, 3)),
        "lost_device_s": column(lambda r: round(r.lost_device_s, 3)),
        "refused": column(lambda r: r.refused, False),
        "without_guarantee": column(lambda r: r.unguaranteed, False),
    }


def _span(records: Sequence[Record]) -> tuple[int, int, int]:
    """First submission, last submission, last end."""
    if not records:
        return 0, 1, 1
    return (
        min(record.job.submit_s for record in records),
        max(record.job.submit_s for record in records),
        max(record.end_s for record in records),
    )


def _by_tier(records: Sequence[Record], value: Callable[[Record], float]) -> dict[str, Spread]:
    return {
        tier.value: Spread.of([value(record) for record in records if record.job.tier is tier])
        for tier in Tier
    }


def _area(line: Timeline, values: Sequence[float], edges: Floats) -> Floats:
    """Of a step function, between the edges."""
    at = np.asarray(line.at_s, dtype=np.float64)
    steps = np.asarray(values, dtype=np.float64)
    if len(at) < 2:
        return np.zeros(len(edges) - 1)
    sums = np.concatenate([[0.0], np.cumsum(np.diff(at) * steps[:-1])])
    return np.diff(np.interp(edges, at, sums))


def _growth(line: Timeline, edges: Floats) -> Floats:
    """Of the count of stops and moves, between the edges."""
    counts = np.concatenate([[0], np.asarray(line.disturbed, dtype=np.float64)])
    return np.diff(counts[np.searchsorted(np.asarray(line.at_s), edges, "right")])


def _quantiles(values: Sequence[float], shares: Floats) -> list[float]:
    return _rounded(np.quantile(np.asarray(values, dtype=np.float64), shares)) if values else []


def _rounded(values: Floats, digits: int = 2) -> list[float]:
    return [round(float(value), digits) for value in values]
