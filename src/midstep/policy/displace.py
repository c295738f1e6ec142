"""Making room for a job by taking devices from those that rank behind it.

Whoever ranks last gives first, of equals the one that it costs least. As few as will do give way, and each
keeps what it can: other free devices, or fewer of its own; only then is it suspended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from midstep.policy.asks import Settings
from midstep.policy.causes import Due, Gave, Owed, Reclaimed
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.homes import Homes, sharings
from midstep.policy.ledger import Job
from midstep.policy.pool import Spots

DEPTH = 192  # victims looked at for one job
DEPTH_HARD = 4096  # where a guarantee depends on it


@dataclass(frozen=True, slots=True)
class Want:
    """``least_rank``: nobody that ranks before that gives way. ``hard``: even those that have just been
    started do."""

    job: Job
    homes: Homes
    steps: tuple[int, ...]  # ranks a device that would do, fewest first
    least_rank: int
    hard: bool


@dataclass(frozen=True, slots=True)
class Room:
    """What would do: where, with how many ranks a device, and who might give way, the last in rank first."""

    sharing: int
    spots: Spots
    victims: list[Job]


def find_room(floor: Floor, want: Want, now_s: float, hand: Hand, settings: Settings) -> Room | None:
    """With the fewest ranks a device for which there are victims enough."""
    steps = [s for s in want.steps if floor.pool.fits(want.homes, s)]
    if not steps:
        return None
    own = dict(want.job.spots) if want.job.floor is floor else {}
    tally = _Tally(floor, want.homes, own)
    victims: list[Job] = []
    found: tuple[int, int, int] | None = None  # sharing, victims, place (-1: several)
    for victim in _candidates(floor, want, now_s, hand, settings):
        victims.append(victim)
        tally.add(victim)
        while steps and (place := tally.enough(steps[-1], victim)) is not None:
            found = (steps.pop(), len(victims), place)
        if not steps or len(victims) >= (DEPTH_HARD if want.hard else DEPTH):
            break
    if found is None:
        return None
    sharing, count, place = found
    if place >= 0:
        return Room(sharing, [(place, want.homes.devices(sharing))], victims[:count])
    tally = _Tally(floor, want.homes, own)
    for victim in victims[:count]:
        tally.add(victim)
    spots = tally.several(sharing)
    return Room(sharing, spots, victims[:count]) if spots else None


def clear(floor: Floor, want: Want, room: Room, hand: Hand, now_s: float, cause: Owed | Due) -> list[Job]:
    """Take the room from its victims, so that its spots are free, but for what the job has there already.
    Those that were suspended."""
    pool = floor.pool
    own = dict(want.job.spots) if want.job.floor is floor else {}
    missing = {place: max(0, count - own.get(place, 0)) for place, count in room.spots}
    needed = list(missing.items())
    _reserve(floor, missing)
    suspended: list[Job] = []
    for victim in _needed(floor, room.victims, missing):
        floor.lift(victim)
        _reserve(floor, missing)
        reclaims = victim.borrowed > want.job.borrowed
        why = Reclaimed(want.job.ask.project) if reclaims else Gave(want.job.ask.job_id, cause)
        spots, sharing = _leftover(floor, victim)
        if spots is None:
            hand.suspend(victim, why, now_s)
            suspended.append(victim)
        else:
            hand.resize(victim, floor, sharing, spots, why, now_s)
    assert not any(missing.values()), "victims gave less than they had"
    pool.give_back((place, count) for place, count in needed if count)
    return suspended


def _candidates(floor: Floor, want: Want, now_s: float, hand: Hand, settings: Settings) -> Iterator[Job]:
    for equals in floor.victims.down_to(want.least_rank):
        if len(equals) > 1:
            equals = sorted(
                equals[:DEPTH], key=lambda job: (_price(job, settings), -job.moved_s, job.ask.job_id)
            )
        for job in equals:
            if job is want.job or (job.tier.guarantee == 0 and not job.ask.may_move and not want.hard):
                continue
            if want.hard or hand.settled(job, now_s):
                yield job


def _price(job: Job, settings: Settings) -> float:
    """Of stopping it and letting it go on, in device seconds for each device that this frees."""
    costs = settings.costs
    return costs.suspend_s + costs.resume_s + 2 * job.snapshot_bytes / costs.bytes_per_s


class _Tally:
    """What would be free, as victims are added."""

    def __init__(self, floor: Floor, homes: Homes, own: dict[int, int]) -> None:
        self._floor, self._homes = floor, homes
        self._more = dict(own)
        self._whole: dict[int, int] = {}  # unit -> how many of them would be free

    def add(self, victim: Job) -> None:
        """It would give way."""
        for place, count in _holds(victim):
            if not self._floor.pool.closed[place]:
                before = self._more.get(place, 0)
                self._more[place] = before + count
                left = self._floor.pool.left[place] + before
                for unit in self._whole:
                    self._whole[unit] += (left + count) // unit - left // unit

    def enough(self, sharing: int, victim: Job) -> int | None:
        """A place where all of it would fit now, -1 for several, None for nowhere."""
        pool, need = self._floor.pool, self._homes.devices(sharing)
        if need <= pool.largest:
            for place, _ in victim.spots:
                if not pool.closed[place] and pool.left[place] + self._more.get(place, 0) >= need:
                    return place
        if self._homes.count == 1:
            return None
        return -1 if self._units(sharing) >= _units(self._homes, sharing) else None

    def several(self, sharing: int) -> Spots | None:
        """On nodes that are free anyway, and on those of victims with the most free."""
        pool, unit = self._floor.pool, max(1, self._homes.unit(sharing))
        units, devices = _units(self._homes, sharing), self._homes.devices(sharing)
        places = sorted(self._more, key=lambda place: (-pool.left[place], place))
        found: Spots = []
        for place, usable in [*self._free(unit), *((p, pool.left[p] + self._more[p]) for p in places)]:
            take = min(units, usable // unit)
            if take > 0:
                found.append((place, min(devices, take * unit)))
                units -= take
                devices -= found[-1][1]
            if units <= 0 or devices <= 0:
                return found
        return None

    def _units(self, sharing: int) -> int:
        pool, unit = self._floor.pool, max(1, self._homes.unit(sharing))
        found = self._whole.get(unit)
        if found is None:
            found = pool.units_free(unit)
            for place, more in self._more.items():
                if not pool.closed[place]:
                    found += (pool.left[place] + more) // unit - pool.left[place] // unit
            self._whole[unit] = found
        return found

    def _free(self, unit: int) -> Iterator[tuple[int, int]]:
        pool = self._floor.pool
        for free in range(pool.largest, unit - 1, -1):
            bits = pool.by_free[free]
            while bits:
                low = bits & -bits
                bits ^= low
                if (place := low.bit_length() - 1) not in self._more:
                    yield place, free


def _needed(floor: Floor, victims: list[Job], missing: dict[int, int]) -> list[Job]:
    """Of the victims those without whom it does not do, the ones that rank first left out first."""
    left = dict(missing)
    chosen: list[Job] = []
    for victim in victims:
        gives = {p: count for p, count in _holds(victim) if left.get(p, 0) > 0}
        if gives:
            chosen.append(victim)
            for place, count in gives.items():
                left[place] -= count
    for victim in list(reversed(chosen)):
        gives = [(place, count) for place, count in _holds(victim) if place in left]
        if all(left[place] + count <= 0 for place, count in gives):
            chosen.remove(victim)
            for place, count in gives:
                left[place] += count
    return chosen


def _holds(job: Job) -> Spots:
    """Whole devices; who has a part of one does not give the rest of it."""
    return job.spots if job.slot < 0 else []


def _reserve(floor: Floor, missing: dict[int, int]) -> None:
    pool = floor.pool
    for place, count in missing.items():
        take = min(count, pool.left[place])
        if take > 0:
            pool.change(place, -take)
            missing[place] -= take


def _leftover(floor: Floor, victim: Job) -> tuple[Spots | None, int]:
    """What it can have now instead: as much as before elsewhere, or less where it is."""
    assert victim.homes is not None
    for sharing in sharings(victim.homes, victim.ask.least):
        if sharing < victim.sharing:
            continue
        if sharing > victim.sharing and victim.tier.guarantee:
            break
        spots = floor.pool.find(victim.homes, sharing, near=victim.spots)
        if spots is not None:
            return spots, sharing
    return None, 0


def _units(homes: Homes, sharing: int) -> int:
    return homes.count if sharing < homes.size else homes.devices(sharing)
