"""Did jobs get the GPU fraction that their tier promises?

Over a sliding hour: in any hour a job may lack `1 - guarantee` of it, of the time since its submission and
until its end; what it gets is its progress (its rate: half of the devices, half of it), and what is done
again was not progress. A job that lives for less than an hour is held to the same allowance. Over its life:
its duration over the time from submission to the end of its work, whatever its length; no allowance. (The
second of the clock in which it ends, and for whose rest it holds its devices, is not its life: of a job of
twenty seconds that would be a twentieth.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.model.tiers import Tier
from midstep.sim.outcome import Outcome
from midstep.sim.record import Record

Floats = NDArray[np.float64]
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Shortfall:
    """``lacked_s``: in the worst hour; ``since_s``: from when on more was lacking than is allowed;
    ``under_s``: for how long in all."""

    record: Record
    lacked_s: float
    since_s: float
    under_s: float
    spans: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a tier. ``held``: jobs with the guarantee (the others were admitted without one: ``without``).
    ``under_hour``: of these, with an hour below it; ``avoidable``: and all the while what was guaranteed
    fitted into the devices that there were; ``under_life``: below it over their life. Worst: the GPU fraction
    of the worst hour and of the worst life. ``first``: the first shortfall and its cause, in words."""

    jobs: int
    held: int
    without: int
    under_hour: int
    avoidable: int
    under_life: int
    worst_hour: float
    worst_life: float
    first: str = ""
    first_s: float | None = None


def kept(outcome: Outcome) -> tuple[dict[str, Kept], dict[str, list[Shortfall]]]:
    """By tier, of those with a guarantee."""
    demand = _Demand(outcome)
    tiers: dict[str, Kept] = {}
    short: dict[str, list[Shortfall]] = {}
    for tier in Tier:
        if tier.guarantee:
            own = [r for r in outcome.records if r.job.tier is tier and not r.refused]
            tiers[tier.value], short[tier.value] = _kept(outcome, demand, tier, own)
    return tiers, short


def life(record: Record) -> float:
    """The GPU fraction over a job's life."""
    life_s = record.done_s - record.job.submit_s
    return record.job.duration_s / life_s if record.jct_s else 1.0


def hour_fraction(record: Record) -> float:
    """The GPU fraction of a job's worst hour."""
    short = worst_hour(record, 0.0)
    return 1.0 - short.lacked_s / HOUR_S if short else 1.0


def worst_hour(record: Record, allowed_s: float) -> Shortfall | None:
    """None: never was anything lacking."""
    jct_s, submit_s = record.jct_s, record.job.submit_s
    total_s = jct_s - sum((until - since) * rate for since, until, rate in record.stretches)
    if total_s <= 1e-6 or not jct_s:
        return None
    if jct_s <= HOUR_S and total_s <= allowed_s:
        return Shortfall(record, total_s, 0.0, 0.0, ())
    at, lacking = _lacking(record)
    # Within straight lines the most is at an end: where one begins, or an hour later.
    ends = np.unique(np.concatenate([at, at + HOUR_S]))
    ends = ends[ends <= submit_s + jct_s]
    window = np.interp(ends, at, lacking) - np.interp(ends - HOUR_S, at, lacking)
    spans = _above(ends, window, allowed_s + 1e-6)
    since_s = spans[0][0] if spans else 0.0
    under_s = sum(until - since for since, until in spans)
    return Shortfall(record, float(window.max(initial=0.0)), since_s, under_s, spans)


def _lacking(record: Record) -> tuple[Floats, Floats]:
    """What a job had lacked by when, as corners of a line."""
    at, lacking = [float(record.job.submit_s)], [0.0]
    for since, until, rate in record.stretches:
        if since > at[-1]:
            lacking.append(lacking[-1] + since - at[-1])
            at.append(float(since))
        lacking.append(lacking[-1] + (until - since) * (1.0 - rate))
        at.append(float(until))
    if record.end_s > at[-1]:
        lacking.append(lacking[-1] + record.end_s - at[-1])
        at.append(float(record.end_s))
    return np.asarray(at), np.asarray(lacking)


def _above(at: Floats, values: Floats, bound: float) -> tuple[tuple[float, float], ...]:
    """Where a line of straight pieces is above a bound."""
    found: list[tuple[float, float]] = []
    since = float(at[0]) if values[0] > bound else None
    for i in range(1, len(at)):
        before, after = values[i - 1] > bound, values[i] > bound
        if before != after:
            share = (bound - values[i - 1]) / (values[i] - values[i - 1])
            crossing = float(at[i - 1] + share * (at[i] - at[i - 1]))
            if after:
                since = crossing
            elif since is not None:
                found.append((since, crossing))
                since = None
    if since is not None:
        found.append((since, float(at[-1])))
    return tuple(found)


class _Demand:
    """What was guaranteed to the jobs that were there, over time: by the cluster that they were bound to."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._where = outcome.where or [""] * len(outcome.records)
        changes: dict[str, list[tuple[int, float]]] = {}
        for record in outcome.records:
            share = _share(record)
            if share and record.jct_s:
                line = changes.setdefault(self._where[record.job.index], [])
                line += [(record.job.submit_s, share), (record.end_s, -share)]
        self._lines = {name: _summed(line) for name, line in changes.items()}
        self._sizes: dict[str, int] = {"": outcome.fleet.devices}
        for node in outcome.fleet.nodes:
            self._sizes[node.cluster] = self._sizes.get(node.cluster, 0) + node.devices

    def capacity(self, record: Record) -> int:
        """Devices where it may be."""
        return self._sizes[self._where[record.job.index]]

    def at(self, record: Record, now_s: float) -> float:
        """Devices guaranteed there then."""
        at, sums = self._lines[self._where[record.job.index]]
        return float(sums[max(0, int(np.searchsorted(at, now_s, "right")) - 1)])

    def most(self, record: Record, from_s: float, until_s: float) -> float:
        """The most of it in between."""
        at, sums = self._lines[self._where[record.job.index]]
        low = max(0, int(np.searchsorted(at, from_s, "right")) - 1)
        return float(sums[low : max(low + 1, int(np.searchsorted(at, until_s, "right")))].max())


def _share(record: Record) -> float:
    """Devices that a job was guaranteed."""
    return 0.0 if record.refused or record.unguaranteed else record.job.size * record.job.tier.guarantee


def _summed(changes: list[tuple[int, float]]) -> tuple[Floats, Floats]:
    ordered = np.asarray(sorted(changes), dtype=np.float64)
    at, first = np.unique(ordered[:, 0], return_index=True)
    sums = np.add.accumulate(np.add.reduceat(ordered[:, 1], first))
    return at, sums


def _kept(
    outcome: Outcome, demand: _Demand, tier: Tier, own: Sequence[Record]
) -> tuple[Kept, list[Shortfall]]:
    held = [record for record in own if not record.unguaranteed]
    allowed_s = (1.0 - tier.guarantee) * HOUR_S
    all_short = [short for record in held if (short := worst_hour(record, allowed_s)) is not None]
    under = sorted((s for s in all_short if s.spans), key=lambda s: (s.since_s, s.record.job.index))
    avoidable = [s for s in under if _fitted(demand, s)]
    lives = [life(record) for record in held]
    return Kept(
        jobs=len(own),
        held=len(held),
        without=len(own) - len(held),
        under_hour=len(under),
        avoidable=len(avoidable),
        under_life=sum(value < tier.guarantee - 1e-9 for value in lives),
        worst_hour=1.0 - max((s.lacked_s for s in all_short), default=0.0) / HOUR_S,
        worst_life=min(lives, default=1.0),
        first=_cause(outcome, demand, under[0]) if under else "",
        first_s=round(under[0].since_s, 2) if under else None,
    ), under


def _fitted(demand: _Demand, short: Shortfall) -> bool:
    """All that was guaranteed, in the hour before it was under its guarantee and until the end of that."""
    record = short.record
    most = demand.most(record, short.since_s - HOUR_S, short.spans[-1][1])
    return most <= demand.capacity(record)


def _cause(outcome: Outcome, demand: _Demand, short: Shortfall) -> str:
    record, line = short.record, outcome.timeline
    moment = max(0, int(np.searchsorted(np.asarray(line.at_s), short.since_s, "right")) - 1)
    free = line.there[moment] - line.used[moment]
    there = [(s, u, r) for s, u, r in record.stretches if s <= short.since_s <= u]
    state = f"ran at a rate of {there[0][2]:.2f}" if there else "made no progress"
    failed = f"; nodes of it had failed {record.cuts} times" if record.cuts else ""
    return (
        f"job {record.job.job_id} ({record.job.size:g} devices, submitted at {record.job.submit_s} s), from"
        f" {short.since_s:.0f} s on, when it {state}{failed}; {free:g} of {line.there[moment]} devices were"
        f" free, {line.waiting_devices[moment]:g} waited for; guaranteed to admitted jobs:"
        f" {demand.at(record, short.since_s):.1f} of {demand.capacity(record)}"
    )


def under_over_time(short: Mapping[str, Sequence[Shortfall]], edges: Floats) -> dict[str, list[float]]:
    """By tier: how many jobs were under their guarantee, mean over each step."""
    width = edges[1:] - edges[:-1]
    found: dict[str, list[float]] = {}
    for tier, jobs in short.items():
        sums = np.zeros(len(edges) - 1)
        for since, until in (span for job in jobs for span in job.spans):
            sums += np.clip(np.minimum(edges[1:], until) - np.maximum(edges[:-1], since), 0.0, None)
        found[tier] = [round(float(x), 4) for x in sums / width]
    return found
