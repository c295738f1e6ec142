"""Making room for a job by taking devices from those that rank behind it.

Whoever ranks last gives first, of equals the one that it costs least. As few as will do give way, and each
keeps what it can: other free devices, or fewer of its own; only then is it suspended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from midstep.policy.asks import MILLI, Settings
from midstep.policy.causes import Due, Gave, Owed, Reclaimed
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.homes import Homes, sharings
from midstep.policy.ledger import Job, device_of
from midstep.policy.pool import Spots
from midstep.policy.tally import Tally

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
    """What would do: where, with how many ranks a device, and who might give way, the last in rank first.
    ``slot``: of a part of a device, the shared one."""

    sharing: int
    spots: Spots
    victims: list[Job]
    slot: int = -1


def find_room(floor: Floor, want: Want, now_s: float, hand: Hand, settings: Settings) -> Room | None:
    """With the fewest ranks a device for which there are victims enough."""
    if want.job.ask.milli < MILLI:
        return _find_part(floor, want, now_s, hand, settings)
    steps = [s for s in want.steps if floor.pool.fits(want.homes, s)]
    if not steps:
        return None
    own = dict(want.job.spots) if want.job.floor is floor else {}
    tally = Tally(floor, want.homes, own)
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
    tally = Tally(floor, want.homes, own)
    for victim in victims[:count]:
        tally.add(victim)
    spots = tally.several(sharing)
    return Room(sharing, spots, victims[:count]) if spots else None


def _find_part(floor: Floor, want: Want, now_s: float, hand: Hand, settings: Settings) -> Room | None:
    """Where the last in rank give way: all of a device, or enough of one that is shared. Of equals as few as
    will do."""
    pool, milli = floor.pool, want.job.ask.milli
    sharers: dict[tuple[int, int], list[Job]] = {}
    best: Room | None = None
    victims = _candidates(floor, want, now_s, hand, settings) if want.steps else iter(())
    for victim in islice(victims, DEPTH_HARD if want.hard else DEPTH):
        if best is not None and (len(best.victims) == 1 or victim.rank < best.victims[-1].rank):
            break
        for place, _ in victim.spots:
            if pool.closed[place]:
                continue
            if victim.slot < 0:
                return Room(1, [(place, 1)], [victim])
            on = sharers.setdefault((place, victim.slot), [])
            on.append(victim)
            enough = _enough(on, milli - pool.part_left(place, victim.slot))
            if enough and (best is None or len(enough) < len(best.victims)):
                best = Room(1, [(place, 1)], enough, victim.slot)
    return best


def _enough(sharers: list[Job], milli: int) -> list[Job]:
    """Of these such as have so much: one, if one has; else who ranks first is left out first."""
    alone = [it for it in sharers if it.ask.milli >= milli]
    if alone:
        return [min(alone, key=lambda it: it.ask.milli)]
    over = sum(it.ask.milli for it in sharers) - milli
    needed: list[Job] = []
    for job in reversed(sharers) if over >= 0 else ():
        if job.ask.milli <= over:
            over -= job.ask.milli
        else:
            needed.append(job)
    return needed[::-1]


def clear(floor: Floor, want: Want, room: Room, hand: Hand, now_s: float, cause: Owed | Due) -> list[Job]:
    """Take the room from its victims, so that its spots are free, but for what the job has there already.
    Those that were suspended."""
    if room.slot >= 0:
        return _clear_part(floor, want, room, hand, now_s, cause)
    pool = floor.pool
    own = dict(want.job.spots) if want.job.floor is floor else {}
    missing = {place: max(0, count - own.get(place, 0)) for place, count in room.spots}
    needed = list(missing.items())
    groups = _needed(floor, room.victims, missing)
    for victim in (it for givers in groups for it in givers if it.slot >= 0):
        floor.lift(victim)  # all of them, before one goes on where another has yet to leave
    _reserve(floor, missing)
    suspended: list[Job] = []
    for givers in groups:
        if givers[0].slot < 0:
            floor.lift(givers[0])
            _reserve(floor, missing)
        suspended += [it for it in givers if not _goes_on(floor, it, want, hand, now_s, cause)]
    assert not any(missing.values()), "victims gave less than they had"
    pool.give_back((place, count) for place, count in needed if count)
    return suspended


def _clear_part(
    floor: Floor, want: Want, room: Room, hand: Hand, now_s: float, cause: Owed | Due
) -> list[Job]:
    """The same of a shared device."""
    pool, place, milli = floor.pool, room.spots[0][0], want.job.ask.milli
    for victim in room.victims:
        floor.lift(victim)
    pool.take_part(place, room.slot, milli)
    suspended = [it for it in room.victims if not _goes_on(floor, it, want, hand, now_s, cause)]
    pool.give_back_part(place, room.slot, milli)
    return suspended


def _goes_on(floor: Floor, victim: Job, want: Want, hand: Hand, now_s: float, cause: Owed | Due) -> bool:
    """Whether there is anything for one that has left its devices; else it is suspended."""
    reclaims = victim.borrowed > want.job.borrowed
    why = Reclaimed(want.job.ask.project) if reclaims else Gave(want.job.ask.job_id, cause)
    if victim.slot >= 0:
        found = floor.pool.find_part(victim.ask.milli)
        spots, sharing, slot = ([(found[0], 1)], 1, found[1]) if found else (None, 0, -1)
    else:
        (spots, sharing), slot = _leftover(floor, victim), -1
    if spots is None:
        hand.suspend(victim, why, now_s)
    else:
        hand.resize(victim, floor, sharing, spots, why, now_s, slot)
    return spots is not None


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


def _needed(floor: Floor, victims: list[Job], missing: dict[int, int]) -> list[list[Job]]:
    """Of the victims those without whom it does not do, the ones that rank first left out first. Those who
    share a device give it together, or not at all."""
    left = dict(missing)
    chosen: list[tuple[list[Job], Spots]] = []
    for givers, spots in _givers(floor, victims):
        gives = [(place, count) for place, count in spots if place in left]
        if any(left[place] > 0 for place, _ in gives):
            chosen.append((givers, gives))
            for place, count in gives:
                left[place] -= count
    for one in list(reversed(chosen)):
        if all(left[place] + count <= 0 for place, count in one[1]):
            chosen.remove(one)
            for place, count in one[1]:
                left[place] += count
    return [givers for givers, _ in chosen]


def _givers(floor: Floor, victims: list[Job]) -> Iterator[tuple[list[Job], Spots]]:
    """Who gives whole devices, and which."""
    sharers: dict[tuple[int, int], list[Job]] = {}
    for victim in victims:
        if victim.slot < 0:
            yield [victim], victim.spots
            continue
        on = sharers.setdefault(device_of(victim), [])
        on.append(victim)
        if sum(it.ask.milli for it in on) + floor.pool.part_left(*device_of(victim)) == MILLI:
            yield on, victim.spots


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
