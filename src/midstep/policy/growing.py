"""Jobs that run on fewer devices than they asked for grow: at once where a device beside them becomes
free; once a tick also by moving, or at the cost of those behind them."""

from __future__ import annotations

from collections.abc import Collection

from midstep.policy.asks import Settings
from midstep.policy.causes import Due, Grown, Owed
from midstep.policy.displace import Want, clear, find_room
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.ledger import Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.placing import steps_on
from midstep.policy.pool import Spots
from midstep.policy.projects.quota import Projects
from midstep.policy.repacking import Lists, Repacking

GROWN_AT_ONCE, OWED_AT_ONCE = 8, 128


class Growing:
    """See the module."""

    def __init__(self, lists: Lists, hand: Hand, projects: Projects, settings: Settings) -> None:
        self._lists, self._hand, self._projects, self._settings = lists, hand, projects, settings
        self._tick = -1
        self._repacking = Repacking(lists, hand, settings)
        self.again = False  # somebody waits for what is free: decide again at once

    def grow(self, floors: Collection[Floor], tick: int, now_s: float) -> None:
        """Those on these floors."""
        for floor in floors:
            if floor.touched:
                for job in self._neighbours(floor):
                    self._one(job, floor, now_s, near_only=True)
                floor.touched.clear()
            if tick != self._tick and floor.shrunk:
                self._far(floor, [other for other in floors if other is not floor], now_s)
                floor.looked = floor.pool.version
        self._tick = tick

    def _neighbours(self, floor: Floor) -> list[Job]:
        found = {
            job
            for place in floor.touched
            if floor.pool.left[place] and not floor.pool.closed[place]
            for job in floor.on.get(place, ())
            if job.sharing > 1
        }
        return sorted(found, key=lambda job: (job.rank, job.ask.job_id))

    def _far(self, floor: Floor, others: list[Floor], now_s: float) -> None:
        candidates: list[Job] = []
        for job in floor.shrunk.up():
            owed = job.rank < SPARE * BAND
            if len(candidates) >= (OWED_AT_ONCE if owed else GROWN_AT_ONCE):
                break
            if owed or self._hand.settled(job, now_s):
                candidates.append(job)
        for job in candidates:
            if job.floor is not floor or job.sharing <= 1:
                continue  # it gave way to one before it
            if floor.pool.free and self._one(job, floor, now_s, near_only=False):
                continue
            if any(self._changes_floor(job, floor, other, now_s) for other in others):
                continue
            owed = job.rank < SPARE * BAND
            least_rank = SPARE * BAND if owed else job.rank + self._settings.gap
            highest = floor.victims.highest
            if not owed and (highest is None or highest < least_rank):
                continue
            if self._by_claims(job, floor, least_rank, now_s, owed):
                continue
            if not owed:
                break  # those behind it in rank would find no more
            if self._repacking.clear(job, floor, now_s) and not self._one(job, floor, now_s, False):
                self._by_others(job, floor, least_rank, now_s, owed)
            if job.sharing > 1 and job.ask.may_move and self._lists.refuge(job, now_s):
                self._leaves(job, floor, now_s)

    def _one(self, job: Job, floor: Floor, now_s: float, near_only: bool) -> bool:
        assert job.homes is not None
        most = job.devices + self._projects.limit_left(job.ask.project)
        version = floor.pool.version
        floor.lift(job)
        for sharing in steps_on(job, floor, most):
            if sharing >= job.sharing:
                break
            spots = floor.pool.find(job.homes, sharing, near=job.spots)
            if spots is None or (near_only and not _within(spots, job.spots)):
                continue
            self._hand.resize(job, floor, sharing, spots, Grown(), now_s)
            self._lists.watch(job)
            return True
        floor.put(job)
        floor.pool.version = version  # nothing has become free
        return False

    def _changes_floor(self, job: Job, floor: Floor, other: Floor, now_s: float) -> bool:
        """Devices of another type that it accepts are free, for all of it: it waits, and will get them."""
        types = job.ask.device_types
        if not other.pool.free or (types and other.pool.device_type not in types) or job.homes is None:
            return False
        if not job.ask.may_move or other.pool.find(job.homes, 1) is None:
            return False
        self._leaves(job, floor, now_s)
        self.again = True
        return True

    def _leaves(self, job: Job, floor: Floor, now_s: float) -> None:
        floor.lift(job)
        self._hand.suspend(job, Grown(), now_s)
        self._lists.add(job, now_s)

    def _by_claims(self, job: Job, floor: Floor, least_rank: int, now_s: float, owed: bool) -> bool:
        """Of what is only spare, as much as its project may claim."""
        if owed:
            return self._by_others(job, floor, least_rank, now_s, owed)
        return any(
            self._by_others(job, floor, max(least_rank, band * BAND), now_s, owed, devices)
            for band, devices in self._projects.claims(job.ask.project, job.borrowed)
        )

    def _by_others(
        self, job: Job, floor: Floor, least_rank: int, now_s: float, owed: bool, more: float = float("inf")
    ) -> bool:
        assert job.homes is not None
        most = job.devices + min(more, self._projects.limit_left(job.ask.project))
        steps = tuple(s for s in steps_on(job, floor, most) if s < job.sharing)
        want = Want(job, job.homes, steps, least_rank, owed)
        room = find_room(floor, want, now_s, self._hand, self._settings)
        if room is None:
            return False
        cause = Owed(job.tier) if owed else Due()
        suspended = clear(floor, want, room, self._hand, now_s, cause)
        floor.lift(job)
        self._hand.resize(job, floor, room.sharing, room.spots, cause, now_s)
        self._lists.watch(job)
        for victim in suspended:
            self._lists.add(victim, now_s)
        return True


def _within(spots: Spots, near: Spots) -> bool:
    return {place for place, _ in spots} <= {place for place, _ in near}
