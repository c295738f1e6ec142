"""Giving devices to jobs that wait: what is free, or what those behind them in rank have."""

from __future__ import annotations

from midstep.policy.asks import MILLI, Settings
from midstep.policy.causes import Due, Free, Owed
from midstep.policy.displace import Want, clear, find_room
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.homes import Homes, sharings
from midstep.policy.ledger import Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.pool import Spots
from midstep.policy.projects.quota import Projects
from midstep.policy.regroup import Regrouping
from midstep.policy.repacking import Lists, Repacking
from midstep.policy.room import make_room
from midstep.policy.waiting import shape_on

PART = Homes(1, 1, 1)


class Placing:
    """See the module."""

    def __init__(self, lists: Lists, hand: Hand, projects: Projects, settings: Settings) -> None:
        self._lists, self._hand, self._projects, self._settings = lists, hand, projects, settings
        self._repacking = Repacking(lists, hand, settings)
        self._regrouping = Regrouping(lists, hand)

    def owed(self, job: Job, floors: list[Floor], now_s: float) -> bool:
        """Whether it got some: whole if there is any way, at the cost of lower tiers or by moving others;
        fewer only where no other cluster has room for it either."""
        cause = Owed(job.tier)
        if not job.ask.devices and floors:
            self._start(job, floors[0], 1, [], now_s, cause)
            return True
        for floor in floors:
            if self._from_free(job, floor, (1,), now_s, cause):
                return True
        steps = steps_on(job, floors[0])[:1] if floors else ()
        if self._from_any(job, floors, steps, SPARE * BAND, now_s, cause):
            return True
        if any(self._by_regrouping(job, floor, now_s, cause) for floor in floors):
            return True
        behind = (job.rank // BAND + 1) * BAND
        if behind < SPARE * BAND and self._from_any(job, floors, steps, behind, now_s, cause):
            return True
        if any(self._by_moving(job, floor, now_s, cause) for floor in floors):
            return True
        if any(self._by_repacking(job, floor, now_s, cause) for floor in floors):
            return True
        if self._lists.refuge(job, now_s):
            return False
        for floor in floors:
            steps = steps_on(job, floor)
            if self._from_free(job, floor, steps, now_s, cause):
                return True
            if self._from_others(job, floor, steps, SPARE * BAND, now_s, cause, hard=True):
                return True
        return False

    def _from_any(
        self,
        job: Job,
        floors: list[Floor],
        steps: tuple[int, ...],
        least_rank: int,
        now_s: float,
        cause: Owed,
    ) -> bool:
        return any(
            self._from_others(job, floor, steps, least_rank, now_s, cause, hard=True) for floor in floors
        )

    def _by_moving(self, job: Job, floor: Floor, now_s: float, cause: Owed | Free) -> bool:
        """Its devices are free, but not together: others move."""
        devices = job.ask.devices
        if job.ask.milli < MILLI or devices > floor.pool.largest or not floor.pool.free >= devices > 1:
            return False
        spots = make_room(floor, job, devices, self._hand, now_s, self._settings.settle_s)
        if spots is None:
            return False
        self._start(job, floor, 1, spots, now_s, cause)
        return True

    def _by_regrouping(self, job: Job, floor: Floor, now_s: float, cause: Owed) -> bool:
        return self._regrouping.clear(job, floor, now_s) and self._cleared(job, floor, now_s, cause)

    def _by_repacking(self, job: Job, floor: Floor, now_s: float, cause: Owed) -> bool:
        if job.ask.milli < MILLI or not self._repacking.clear(job, floor, now_s):
            return False
        return self._cleared(job, floor, now_s, cause)

    def _cleared(self, job: Job, floor: Floor, now_s: float, cause: Owed) -> bool:
        """What is in its way now has no guarantee."""
        steps = steps_on(job, floor)[:1]
        return self._from_free(job, floor, steps, now_s, cause) or self._from_others(
            job, floor, steps, SPARE * BAND, now_s, cause, hard=True
        )

    def spare(self, job: Job, floors: list[Floor], now_s: float) -> bool:
        """Whether it got some: all that it asked for, be it at the cost of others; else fewer."""
        if not job.ask.devices:
            self._start(job, floors[0], 1, [], now_s, Free())
            return True
        most = self._projects.limit_left(job.ask.project)
        steps = [steps_on(job, floor, most) for floor in floors]
        least_rank = job.rank + self._settings.gap
        for first, last in ((0, 1), (1, 64)):
            for floor, own in zip(floors, steps):
                if self._from_free(job, floor, own[first:last], now_s, Free()):
                    return True
            if first == 0:
                if self._by_claims(job, floors, steps, least_rank, now_s):
                    return True
                if job.size <= most and any(self._by_moving(job, f, now_s, Free()) for f in floors):
                    return True
        return False

    def _by_claims(
        self, job: Job, floors: list[Floor], steps: list[tuple[int, ...]], least_rank: int, now_s: float
    ) -> bool:
        """At the cost of others: as many as its project may claim from those."""
        for band, devices in self._projects.claims(job.ask.project, job.borrowed):
            behind = max(least_rank, band * BAND)
            for floor, able in zip(floors, steps):
                own = able
                if devices < job.ask.devices:
                    own = tuple(step for step in steps_on(job, floor, devices) if step in able)
                if self._from_others(job, floor, own, behind, now_s, Due(), hard=False):
                    return True
        return False

    def _from_free(
        self, job: Job, floor: Floor, steps: tuple[int, ...], now_s: float, cause: Free | Owed
    ) -> bool:
        if job.ask.milli < MILLI:
            return bool(steps) and self._part_from_free(job, floor, now_s, cause)
        homes = shape_on(job, floor)
        for sharing in steps:
            spots = floor.pool.find(homes, sharing)
            if spots is not None:
                self._start(job, floor, sharing, spots, now_s, cause)
                return True
        return False

    def _part_from_free(self, job: Job, floor: Floor, now_s: float, cause: Free | Owed | Due) -> bool:
        found = floor.pool.find_part(job.ask.milli)
        if found is None:
            return False
        self._start(job, floor, 1, [(found[0], 1)], now_s, cause, slot=found[1])
        return True

    def _from_others(
        self,
        job: Job,
        floor: Floor,
        steps: tuple[int, ...],
        least_rank: int,
        now_s: float,
        cause: Due | Owed,
        hard: bool,
    ) -> bool:
        highest = floor.victims.highest
        if highest is None or highest < least_rank or not steps:
            return False
        homes = shape_on(job, floor) if job.ask.milli == MILLI else PART
        want = Want(job, homes, steps, least_rank, hard)
        room = find_room(floor, want, now_s, self._hand, self._settings)
        if room is None:
            return False
        suspended = clear(floor, want, room, self._hand, now_s, cause)
        if job.ask.milli < MILLI:
            self._part_from_free(job, floor, now_s, cause)
        else:
            self._start(job, floor, room.sharing, room.spots, now_s, cause)
        for victim in suspended:
            self._lists.add(victim, now_s)
        return True

    def _start(
        self,
        job: Job,
        floor: Floor,
        sharing: int,
        spots: Spots,
        now_s: float,
        cause: Free | Owed | Due,
        slot: int = -1,
    ) -> None:
        self._lists.remove(job)
        if job.homes is None and job.ask.milli == MILLI:
            job.homes = shape_on(job, floor)
        self._hand.start(job, floor, sharing, spots, cause, now_s, slot)
        self._lists.watch(job)


def steps_on(job: Job, floor: Floor, most: float = float("inf")) -> tuple[int, ...]:
    """Ranks a device with which it could run there, on at most so many devices; the fewest first."""
    if job.ask.milli < MILLI:
        return (1,) if job.size <= most + 1e-9 else ()
    homes = shape_on(job, floor)
    steps = sharings(homes, job.ask.least)
    return steps if homes.ranks <= most else tuple(s for s in steps if homes.devices(s) <= most + 1e-9)
