"""When a guarantee needs devices together and others with a guarantee are in the way: they move, to free
devices or at the cost of those without a guarantee. Nobody who has one loses anything but the moment of
the move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from midstep.policy.asks import Settings
from midstep.policy.causes import MadeRoom, Owed
from midstep.policy.displace import Want, clear, find_room
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.ledger import Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.room import in_the_way


class Lists(Protocol):
    """A cluster's jobs."""

    def add(self, job: Job, now_s: float) -> None:
        """It waits."""
        ...

    def remove(self, job: Job) -> None:
        """It waits, or runs, no more."""
        ...

    def watch(self, job: Job) -> None:
        """Its rank is to be looked at again at ``review_s``."""
        ...

    @property
    def refuge(self) -> Callable[[Job, float], bool]:
        """Another cluster would take one over with all of its devices."""
        ...


class Repacking:
    """See the module."""

    def __init__(self, lists: Lists, hand: Hand, settings: Settings) -> None:
        self._lists, self._hand, self._settings = lists, hand, settings

    def clear(self, job: Job, floor: Floor, now_s: float) -> bool:
        """Move away whoever can, from the nodes where the least is in the way. Whether all could."""
        pool, nodes = floor.pool, in_the_way(floor, job, self._hand, now_s)
        for place, _ in nodes:
            pool.close(place)
        # Those that move are smaller than the job, and so are those that these move in turn: so it ends.
        done = [self._move(mover, floor, job, now_s) for _, movers in nodes for mover in movers]
        for place, _ in nodes:
            pool.open(place)
        return bool(nodes) and all(done)

    def _move(self, mover: Job, floor: Floor, to: Job, now_s: float) -> bool:
        return self._elsewhere(mover, floor, to, now_s) or (
            self.clear(mover, floor, now_s) and self._elsewhere(mover, floor, to, now_s)
        )

    def _elsewhere(self, mover: Job, floor: Floor, to: Job, now_s: float) -> bool:
        assert mover.homes is not None
        spots = floor.pool.find(mover.homes, mover.sharing)
        suspended: list[Job] = []
        if spots is None:
            want = Want(mover, mover.homes, (mover.sharing,), SPARE * BAND, hard=True)
            room = find_room(floor, want, now_s, self._hand, self._settings)
            if room is None:
                return False
            suspended = clear(floor, want, room, self._hand, now_s, Owed(mover.tier))
            spots = room.spots
        floor.lift(mover)
        self._hand.resize(mover, floor, mover.sharing, spots, MadeRoom(to.ask.job_id), now_s)
        self._lists.watch(mover)
        for victim in suspended:
            self._lists.add(victim, now_s)
        return True
