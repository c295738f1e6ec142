"""Jobs that wait, in classes of those that are alike: if one finds no place, none of its class does."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.policy.floor import Floor
from midstep.policy.homes import Homes, homes_of, sharings
from midstep.policy.ledger import Job
from midstep.policy.ranked import Ranked

Kind = tuple[tuple[str, ...], int, int, int, Homes | None, str]
Stamp = tuple[tuple[int, int | None], ...]


class Class:
    """Jobs with the same types, devices, least, parts and homes, under the same limit. ``floors``: where they
    could be, the most fitting first. ``stamp``: how these were when the first of them last found no place."""

    __slots__ = ("floors", "jobs", "kind", "stamp", "tick")

    def __init__(self, kind: Kind, floors: list[Floor]) -> None:
        self.kind, self.floors = kind, floors
        self.jobs: Ranked[Job] = Ranked()
        self.stamp: Stamp | None = None
        self.tick = -1

    def now(self) -> Stamp:
        """What has to change before another try is worth it."""
        return tuple((floor.pool.version, self.jobs.lowest) for floor in self.floors)


class Waiting:
    """All classes of a cluster."""

    def __init__(self) -> None:
        self._classes: dict[Kind, Class] = {}
        self.count = 0
        self.devices = 0.0

    def add(self, job: Job, limiter: str, floors: Iterable[Floor]) -> None:
        """``limiter``: the project whose limit it may run into."""
        kind = kind_of(job, limiter)
        known = self._classes.get(kind)
        if known is None:
            known = self._classes[kind] = Class(kind, fitting(job, floors))
        job.kind = kind
        known.jobs.add(job.rank, job)
        self.count += 1
        self.devices += job.size

    def remove(self, job: Job) -> None:
        """It waits no more."""
        known = self._classes[job.kind]  # type: ignore[index]
        known.jobs.remove(job.rank, job)
        job.kind = None
        self.count -= 1
        self.devices -= job.size
        if not known.jobs:
            del self._classes[known.kind]

    def classes(self) -> Iterable[Class]:
        """Those with jobs."""
        return self._classes.values()

    def refit(self, floors: Iterable[Floor]) -> None:
        """Nodes came or went."""
        there = list(floors)
        for known in self._classes.values():
            first = known.jobs.first()
            assert first is not None
            known.floors, known.stamp = fitting(first, there), None


def kind_of(job: Job, limiter: str) -> Kind:
    """What makes jobs alike."""
    ask = job.ask
    return (ask.device_types, ask.devices, ask.least, ask.milli, job.homes, limiter)


def shape_on(job: Job, floor: Floor) -> Homes:
    """Its homes; if it never ran, those that it would get there."""
    return job.homes or homes_of(job.ask.devices, floor.pool.largest or 1)


def fits_whole(job: Job, floor: Floor) -> bool:
    """It could run there with all of its devices, were all free."""
    types = job.ask.device_types
    return (not types or floor.pool.device_type in types) and floor.pool.fits(shape_on(job, floor), 1)


def fitting(job: Job, floors: Iterable[Floor]) -> list[Floor]:
    """Where it could ever run: whole on few nodes first, small nodes for small jobs."""
    types, devices = job.ask.device_types, job.ask.devices
    able = [
        floor
        for floor in floors
        if (not types or floor.pool.device_type in types)
        and any(
            floor.pool.fits(shape_on(job, floor), k) for k in sharings(shape_on(job, floor), job.ask.least)
        )
    ]

    def order(floor: Floor) -> tuple[bool, int, str]:
        largest = floor.pool.largest
        small = devices <= largest
        return (not small, largest if small else -largest, floor.pool.device_type)

    return sorted(able, key=order)
