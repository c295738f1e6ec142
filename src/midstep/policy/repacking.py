"""When a guarantee needs devices together and others with a guarantee are in the way: they move, to free
devices or at the cost of those without a guarantee. Nobody who has one loses anything but the moment of
the move."""

from __future__ import annotations

from typing import Protocol

from midstep.policy.asks import Settings
from midstep.policy.causes import MadeRoom, Owed
from midstep.policy.displace import Want, clear, find_room
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.ledger import Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.room import least_owed, movers_off


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


class Repacking:
    """See the module."""

    def __init__(self, lists: Lists, hand: Hand, settings: Settings) -> None:
        self._lists, self._hand, self._settings = lists, hand, settings

    def clear(self, job: Job, floor: Floor, now_s: float) -> bool:
        """Move away whoever can, from the nodes where the least is in the way. Whether there are such
        nodes."""
        pool = floor.pool
        places = least_owed(floor, job)
        for place in places:
            pool.close(place)
        for place in places:
            for mover in movers_off(floor, place):
                if mover is not job:
                    self._elsewhere(mover, floor, job, now_s)
        for place in places:
            pool.open(place)
        return bool(places)

    def _elsewhere(self, mover: Job, floor: Floor, to: Job, now_s: float) -> None:
        assert mover.homes is not None
        spots = floor.pool.find(mover.homes, mover.sharing)
        suspended: list[Job] = []
        if spots is None:
            want = Want(mover, mover.homes, (mover.sharing,), SPARE * BAND, hard=True)
            room = find_room(floor, want, now_s, self._hand, self._settings)
            if room is None:
                return
            suspended = clear(floor, want, room, self._hand, now_s, Owed(mover.tier))
            spots = room.spots
        floor.lift(mover)
        self._hand.resize(mover, floor, mover.sharing, spots, MadeRoom(to.ask.job_id), now_s)
        self._lists.watch(mover)
        for victim in suspended:
            self._lists.add(victim, now_s)
