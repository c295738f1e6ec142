"""When a guarantee needs a device, or a part of one, and others with a guarantee have parts in its way: they
move together. Nobody who has a guarantee loses anything but the moment of the move; who has none makes room
for them, elsewhere or by waiting. First it is thought out (`packing.py`): all of it is done, or nothing."""

from __future__ import annotations

from itertools import islice

from midstep.policy.asks import MILLI
from midstep.policy.causes import Gave, MadeRoom, Owed
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.ledger import Job, device_of
from midstep.policy.packing import Key, Movable, Moves, Parts, hole, vacated
from midstep.policy.repacking import Lists

NODES, FRESH = 8, 8  # looked at; devices that may be shared anew


class Regrouping:
    """See the module."""

    def __init__(self, lists: Lists, hand: Hand) -> None:
        self._lists, self._hand = lists, hand

    def clear(self, job: Job, floor: Floor, now_s: float) -> bool:
        """Whether others moved, so that there is room for it when those without a guarantee leave, too. At
        first only such move as can afford the pause."""
        if not floor.pool.shared or not job.ask.devices:
            return False
        parts = _firm(floor)
        for kindly in (True, False):
            able = {it for jobs in parts.values() for it in jobs if self._may_move(it, kindly, now_s)}
            moves = _moves(job, floor, parts, able.__contains__)
            if moves:
                self._make_way(job, floor, parts, moves, now_s)
                for mover, (place, slot) in moves:
                    floor.lift(mover)
                    cause = MadeRoom(job.ask.job_id)
                    self._hand.resize(mover, floor, 1, [(place, 1)], cause, now_s, slot)
                    self._lists.watch(mover)
                return True
        return False

    def _may_move(self, job: Job, kindly: bool, now_s: float) -> bool:
        return job.ask.may_move and (not kindly or self._hand.can_move(job, now_s))

    def _make_way(self, job: Job, floor: Floor, parts: Parts, moves: Moves, now_s: float) -> None:
        """Those without a guarantee, where others will have too much of a device at any moment."""
        most = _most(parts, moves)
        goes: list[Job] = []
        for key in dict.fromkeys(key for _, key in moves):
            left = MILLI - most[key]
            loose = [it for it in floor.on.get(key[0], ()) if it.slot == key[1] and not it.tier.guarantee]
            for it in sorted(loose, key=lambda it: (it.rank, it.ask.job_id)):
                if it.ask.milli <= left:
                    left -= it.ask.milli
                else:
                    goes.append(it)
        for it in goes:
            floor.lift(it)
        touched = {*(key for _, key in moves), *(device_of(mover) for mover, _ in moves)}
        cause = Gave(job.ask.job_id, Owed(job.tier))
        for it in goes:
            at = _fullest(floor, parts, it.ask.milli, touched)
            if at is not None:
                self._hand.resize(it, floor, 1, [(at[0], 1)], cause, now_s, at[1])
                self._lists.watch(it)
            else:
                self._hand.suspend(it, cause, now_s)
                self._lists.add(it, now_s)


def _firm(floor: Floor) -> Parts:
    """Shared devices of open nodes: who has a guarantee there."""
    pool = floor.pool
    parts: dict[Key, list[Job]] = {key: [] for key in sorted(pool.parts()) if not pool.closed[key[0]]}
    for place in dict.fromkeys(place for place, _ in parts):
        for job in floor.on[place]:
            if job.slot >= 0 and job.tier.guarantee:
                parts[place, job.slot].append(job)
    return parts


def _moves(job: Job, floor: Floor, parts: Parts, movable: Movable) -> Moves | None:
    if job.ask.devices == 1:
        return hole(parts, job.ask.milli, movable)
    each = min(job.ask.devices, floor.pool.largest)
    count = -(-job.ask.devices // each)
    nodes = _nodes(floor, parts, each, everywhere=count > 1)
    choices = [nodes[at : at + count] for at in range(min(NODES, len(nodes) - count + 1))]
    for choice in choices if count == 1 else choices[:1]:
        new = _new(floor, {place for _, place, _ in choice})
        moves = vacated({**parts, **new}, {key for *_, keys in choice for key in keys}, movable)
        if moves is not None:
            return moves
    return None


def _nodes(floor: Floor, parts: Parts, each: int, everywhere: bool) -> list[tuple[int, int, list[Key]]]:
    """Nodes that would have so many devices for a guarantee, if shared ones were vacated: how many have to
    move, where, from which. ``everywhere``: also where none would have to."""
    pool = floor.pool
    shared: dict[int, list[Key]] = {}
    for key, jobs in parts.items():
        if jobs:
            shared.setdefault(key[0], []).append(key)
    found: list[tuple[int, int, list[Key]]] = []
    for place in range(len(pool.sizes)) if everywhere else shared:
        if pool.closed[place] or pool.sizes[place] < each:
            continue
        firm = [it for it in floor.on.get(place, ()) if it.slot < 0 and it.tier.guarantee]
        keys = sorted(shared.get(place, ()), key=lambda key: (len(parts[key]), key))
        short = each - (pool.sizes[place] - len(keys) - sum(floor.at(it, place) for it in firm))
        if short <= len(keys):
            keys = keys[: max(0, short)]
            found.append((sum(len(parts[key]) for key in keys), place, keys))
    return sorted(found)


def _new(floor: Floor, but: set[int]) -> Parts:
    """Free devices of other nodes, one of each, that could be shared."""
    pool = floor.pool
    open_to = (p for p, left in enumerate(pool.left) if left and not pool.closed[p] and p not in but)
    return {(place, pool.new_slot(place)): [] for place in islice(open_to, FRESH)}


def _most(parts: Parts, moves: Moves) -> dict[Key, int]:
    """What those with a guarantee have of each device, when it is the most."""
    has = {key: sum(job.ask.milli for job in jobs) for key, jobs in parts.items()}
    at = {mover: device_of(mover) for mover, _ in moves}
    most = dict(has)
    for mover, key in moves:
        has[at[mover]] -= mover.ask.milli
        has[key] = has.get(key, 0) + mover.ask.milli
        most[key] = max(most.get(key, 0), has[key])
        at[mover] = key
    return most


def _fullest(floor: Floor, parts: Parts, milli: int, but: set[Key]) -> Key | None:
    """A shared device with room for so much now, that nobody else comes to or leaves."""
    pool = floor.pool
    there = [(left, key) for key, left in pool.parts().items() if key in parts and key not in but]
    return min((one for one in there if one[0] >= milli), default=(0, None))[1]
