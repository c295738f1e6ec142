"""Which parts of devices would move so that one more finds room: thought out, nothing is done. Every move
goes into room that is free by then, so that they can be made one after the other.

Promises count a part as the next power of two (`asks.stands_on`). So where all that is promised fits it can
be made to fit (`_by_halves`): of two devices with an odd number of the smallest parts one gives one to the
other; then all have pairs of them, which count as parts of twice the size. So on, up to the size that is
wanted: then what is free is free in pieces of that size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Mapping
from itertools import zip_longest

from midstep.policy.asks import MILLI, pieces
from midstep.policy.ledger import Job, device_of

Key = tuple[int, int]  # place of the node, and which of its shared devices
Moves = list[tuple[Job, Key]]
Parts = Mapping[Key, list[Job]]  # who is where; nobody: a device that may be shared
Movable = Callable[[Job], bool]

UNITS = 1 << 9  # of a device: 0.001 counts as one
DEVICES = 32  # looked at, as long as one of them will do


def hole(parts: Parts, milli: int, movable: Movable) -> Moves | None:
    """So much of one device, or all of it; None: moves do not make it."""
    order = _order(parts)
    if sum(room for room, _ in order) < milli or order[-1][0] >= milli:
        return None  # never, or it is there
    return _by_one(parts, order, milli, movable) or _by_halves(parts, milli, movable)


def vacated(parts: Parts, keys: Container[Key], movable: Movable) -> Moves | None:
    """All of these devices, for others."""
    leaving = [job for key in parts if key in keys for job in parts[key]]
    return _elsewhere(_order(parts), leaving, keys) if all(map(movable, leaving)) else None


def _order(parts: Parts) -> list[tuple[int, Key]]:
    return sorted((MILLI - sum(job.ask.milli for job in jobs), key) for key, jobs in parts.items())


def _by_one(parts: Parts, order: list[tuple[int, Key]], milli: int, movable: Movable) -> Moves | None:
    """Some leave a device: the one that the fewest have to leave."""
    best: tuple[int, int, Key, Moves] | None = None
    for room, key in reversed(order[-DEVICES:]):
        for leaving in _leaving([job for job in parts[key] if movable(job)], milli - room):
            moves = _elsewhere(order, leaving, (key,))
            if moves is not None:
                found = (len(moves), sum(job.ask.milli for job, _ in moves), key, moves)
                best = found if best is None or found[:3] < best[:3] else best
    return best[3] if best else None


def _leaving(able: list[Job], needed: int) -> list[list[Job]]:
    """Such as have so much together: the smallest that has it alone, or the largest ones."""
    able.sort(key=lambda job: (-job.ask.milli, job.ask.job_id))
    alone = [job for job in able if job.ask.milli >= needed][-1:]
    several: list[Job] = []
    for job in able:
        if needed > 0:
            several.append(job)
            needed -= job.ask.milli
    return [choice for choice in (alone, several if needed <= 0 else []) if choice]


def _elsewhere(order: list[tuple[int, Key]], leaving: list[Job], keys: Container[Key]) -> Moves | None:
    """Each to the fullest device with room for it, the largest first."""
    moves: Moves = []
    given: dict[Key, int] = {}
    for job in sorted(leaving, key=lambda it: (-it.ask.milli, it.ask.job_id)):
        milli = job.ask.milli
        for at in range(bisect_left(order, (milli, (-1, -1))), len(order)):
            room, key = order[at]
            if key not in keys and room - given.get(key, 0) >= milli:
                given[key] = given.get(key, 0) + milli
                moves.append((job, key))
                break
        else:
            return None
    return moves


def _by_halves(parts: Parts, milli: int, movable: Movable) -> Moves | None:
    """Among as few devices as have so much free together; more of them where some cannot move."""
    need = _units(milli)
    used = {key: sum(_units(job.ask.milli) for job in jobs) for key, jobs in parts.items()}
    sound = sorted((key for key in parts if used[key] <= UNITS), key=lambda key: (used[key], key))
    free, tried = 0, 0
    for count, key in enumerate(sound, 1):
        free += UNITS - used[key]
        if free >= need and (count >= 2 * tried or count == len(sound)):
            tried = count
            some = {key: parts[key] for key in sound[:count]}
            moves = _Halves(some, movable).hole(milli, need)
            if moves is not None:
                return _without_detours(some, moves, milli)
    return None


def _without_detours(parts: Parts, moves: Moves, milli: int) -> Moves:
    """What can be left out of them, is: they were to make pairs, not room."""
    for at in range(len(moves) - 1, -1, -1):
        fewer = moves[:at] + moves[at + 1 :]
        if _do(parts, fewer, milli):
            moves = fewer
    return moves


def _do(parts: Parts, moves: Moves, milli: int) -> bool:
    """One after the other they can be made, and leave so much of a device."""
    left = {key: MILLI - sum(job.ask.milli for job in jobs) for key, jobs in parts.items()}
    at = {mover: device_of(mover) for mover, _ in moves}
    for mover, key in moves:
        left[at[mover]] += mover.ask.milli
        left[key] -= mover.ask.milli
        at[mover] = key
        if left[key] < 0:
            return False
    return max(left.values()) >= milli


class _Halves:
    """``groups``: by device and size, parts that stay together from now on."""

    def __init__(self, parts: Parts, movable: Movable) -> None:
        self._movable = movable
        self._moves: Moves = []
        self._left = {key: MILLI - sum(job.ask.milli for job in jobs) for key, jobs in parts.items()}
        self._groups: dict[Key, dict[int, list[list[Job]]]] = {key: {} for key in parts}
        for key, jobs in parts.items():
            for job in jobs:
                self._groups[key].setdefault(_units(job.ask.milli), []).append([job])

    def hole(self, milli: int, need: int) -> Moves | None:
        """See the module."""
        size = 1
        while size < need:
            odd = [key for key, groups in self._groups.items() if len(groups.get(size, ())) % 2]
            able = [key for key in odd if self._able(key, size) is not None]
            bound = [key for key in odd if key not in able]
            while able and (bound or len(able) > 1):
                source = able.pop()
                self._move(size, source, bound.pop() if bound else able.pop())
                if self._left[source] >= milli:
                    return self._moves
            for groups in self._groups.values():
                alike = sorted(groups.pop(size, ()), key=lambda group: not all(map(self._movable, group)))
                pairs = groups.setdefault(2 * size, [])
                pairs.extend(
                    [*one, *other] for one, other in zip_longest(alike[::2], alike[1::2], fillvalue=())
                )
            size *= 2
        return None

    def _able(self, key: Key, size: int) -> list[Job] | None:
        """Some that can move; the fewest."""
        groups = [group for group in self._groups[key][size] if all(map(self._movable, group))]
        return min(groups, key=len) if groups else None

    def _move(self, size: int, source: Key, to: Key) -> None:
        group = self._able(source, size)
        assert group is not None
        self._groups[source][size].remove(group)
        self._groups[to][size].append(group)
        for job in group:
            self._moves.append((job, to))
            self._left[source] += job.ask.milli
            self._left[to] -= job.ask.milli
        assert self._left[to] >= 0


def _units(milli: int) -> int:
    """What a promise for it counts as."""
    return UNITS // pieces(milli)
