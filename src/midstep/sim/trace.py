"""Jobs as a trace has them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from midstep.model.tiers import Tier

MILLI = 1000  # parts of a device
SHARES = (
    (Tier.PREMIUM, 0.2),
    (Tier.STANDARD, 0.3),
    (Tier.BASIC, 0.5),
)  # of the jobs, where a trace has no tiers


@dataclass(frozen=True, slots=True)
class Job:
    """One job. ``index``: its place in the trace. ``milli``: how much of each device it takes, 1000 is all;
    less only with one device. ``duration_s``: how long it runs on all of them; only a policy that claims to
    know the future may read it."""

    index: int
    job_id: str
    submit_s: int
    duration_s: int
    devices: int
    milli: int = MILLI
    device_types: tuple[str, ...] = ()  # one of these; empty: any
    cluster: str = ""
    group: str = ""
    user: str = ""
    status: str = ""
    cpus: float = 0.0
    mem_gib: float = 0.0
    tier: Tier = Tier.STANDARD
    estimate_s: int = 0  # what its user said; 0: nothing
    spot_ok: bool = False  # its guarantee may stand on spot nodes

    @property
    def size(self) -> float:
        """Devices, as a fraction where it takes a part of one."""
        return self.devices * self.milli / MILLI


@dataclass(frozen=True, slots=True)
class Trace:
    """``jobs`` in order of submission; those of one second in the order of the file. ``notes``: what a reader
    left out, in words. ``has_tiers``: they are the trace's own."""

    name: str
    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()
    has_tiers: bool = False


def in_order(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """By submission, numbered anew."""
    ordered = sorted(jobs, key=lambda job: job.submit_s)
    return tuple(
        job if job.index == index else replace(job, index=index) for index, job in enumerate(ordered)
    )


def under_load(trace: Trace, load: float) -> Trace:
    """The same jobs, submitted ``load`` times as fast."""
    if load == 1.0:
        return trace
    first = trace.jobs[0].submit_s if trace.jobs else 0
    jobs = (replace(job, submit_s=first + int((job.submit_s - first) / load)) for job in trace.jobs)
    return replace(trace, jobs=in_order(jobs))


def between(trace: Trace, from_s: int | None, until_s: int | None) -> Trace:
    """The jobs submitted within ``[from_s, until_s)``."""
    low, high = -1 if from_s is None else from_s, 1 << 62 if until_s is None else until_s
    return replace(trace, jobs=in_order(job for job in trace.jobs if low <= job.submit_s < high))


def with_tiers(trace: Trace, seed: int, shares: Sequence[tuple[Tier, float]] = SHARES) -> Trace:
    """A trace without tiers has them drawn; the draw of a job depends on the seed and its place alone."""
    if trace.has_tiers:
        return trace
    chance = random.Random(f"tiers {seed}")
    tiers, weights = [tier for tier, _ in shares], [share for _, share in shares]
    drawn = chance.choices(tiers, weights, k=len(trace.jobs))
    return replace(trace, jobs=tuple(replace(job, tier=tier) for job, tier in zip(trace.jobs, drawn)))


def with_estimates(trace: Trace, seed: int, most: float = 5.0) -> Trace:
    """A job without an estimate gets one: its duration times a factor drawn evenly from 1 to ``most``, in
    whole minutes (the f-model of Mu'alem and Feitelson, IEEE TPDS 12(6), 2001)."""
    chance = random.Random(f"estimates {seed}")
    factors = [chance.uniform(1.0, most) for _ in trace.jobs]
    return replace(
        trace,
        jobs=tuple(
            job if job.estimate_s else replace(job, estimate_s=60 + int(job.duration_s * factor / 60) * 60)
            for job, factor in zip(trace.jobs, factors)
        ),
    )
