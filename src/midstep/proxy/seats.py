"""Leases in effect: seats and gates in the mailboxes of ranks that share a device, and what is seen of them.

``leases.Turns`` decides; this carries its orders out. A rank takes turns when it has one mailbox; a rank with
several (a script that spawns its own processes) leaves its device to plain time sharing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from midstep.mailbox.layout import DONE_WORD, KIND_GROUP, State
from midstep.mailbox.seat import (
    ANY,
    FEEDS_WORD,
    LEASE_WORD,
    LOWERED_WORD,
    PULSE_WORD,
    Lease,
    Seating,
    read_note,
    write_seat,
)
from midstep.proxy import classes
from midstep.proxy.boxes import Box
from midstep.proxy.leases import Turns
from midstep.proxy.places import Do, Order, Phase
from midstep.proxy.sharers import seatings
from midstep.proxy.sight import Sight

_HELD, _WITHHELD = int(Lease.HELD), int(Lease.WITHHELD)


@dataclass(slots=True)
class Seat:
    """A mailbox whose rank takes turns, and the slots that its owner waits for, or ANY; none while it waits
    for something that we do not see."""

    box: Box
    turns: Turns
    waits: set[int] = field(default_factory=set[int])


@dataclass(frozen=True, slots=True)
class RankCounters:
    """What one rank has done since the proxy began. Seconds by what it did; those in turns are 0 for a rank
    that has its device for itself."""

    rank: int
    ops: int
    bytes: int
    cpu_s: float  # since the process began
    computing_s: float = 0.0  # with the lease
    waiting_s: float = 0.0  # for operations of others
    queueing_s: float = 0.0  # for the lease
    loose_s: float = 0.0  # not taking turns
    turns: int = 0
    slept: int = 0  # turns that ended because it slept
    taken: int = 0  # turns that ended because they were too long


class Seats:
    """All devices of this node that the job has. Everything in the engine's thread."""

    def __init__(
        self,
        epoch: int,
        devices: Mapping[int, Sequence[int]],
        world_size: int = 0,
        take_turns: bool = True,
    ) -> None:
        self.active = False  # whether anything is to be done in a turn
        self._world_size = world_size
        self._seatings = seatings(epoch, devices)
        self._sight = Sight()
        self._devices: dict[int, Turns] = {}
        self._seats: dict[int, Seat] = {}  # by rank
        self._boxes: dict[int, list[Box]] = {}
        self._roots: dict[int, int] = {}
        self._touched: list[Seat] = []
        self._may_lower = classes.may_lower()
        self._take_turns = take_turns  # else others share the device among them

    def root(self, rank: int, pid: int) -> None:
        """The process at the root of a rank's tree."""
        self._roots[rank] = pid

    def attach(self, box: Box) -> None:
        """A mailbox was found."""
        rank = box.tree
        if box.words[LOWERED_WORD]:  # by a proxy that was killed
            self._raise(box)
        self._open(box)
        seating = self._seatings.get(rank)
        if seating is None:
            return
        write_seat(box.file, seating)
        boxes = self._boxes.setdefault(rank, [])
        boxes.append(box)
        if len(boxes) > 1:
            self._leave(rank)
        elif self._take_turns and len(seating.ranks) > 1 and box.owner:
            turns = self._devices.setdefault(seating.device, self._turns_of(seating))
            seat = self._seats[rank] = Seat(box, turns)
            self._sight.owners[rank] = box.owner
            box.on_wake = lambda _: self._woken(seat)
            turns.join(rank, time.monotonic())
            self._obey(turns)

    def _turns_of(self, seating: Seating) -> Turns:
        return Turns(self._sight, alone=len(seating.ranks) == self._world_size)

    def detach(self, box: Box) -> None:
        """Its owner has ended."""
        boxes = self._boxes.get(box.tree, [])
        if box in boxes:
            boxes.remove(box)
        seat = self._seats.get(box.tree)
        if seat is not None and seat.box is box:
            self._leave(box.tree)

    def noted(self, box: Box, entry: int) -> None:
        """An entry of the post ring that names no slot."""
        seat, note = self._seats.get(box.tree), read_note(entry)
        if seat is None or note is None:
            return
        want, slot = note
        now_s = time.monotonic()
        if want or (slot is not None and not _outstanding(box, slot)):
            seat.turns.ready([box.tree], now_s)
        else:
            if slot is not None:
                seat.waits.add(slot)
            seat.turns.gave_up(box.tree, now_s)
        self._obey(seat.turns)

    def turn(self) -> None:
        """Once in each round of the engine: those whose operations are done, and looks that are due."""
        now_s = time.monotonic()
        if self._touched:
            touched, self._touched = self._touched, []
            for turns in self._devices.values():
                turns.ready([s.box.tree for s in touched if s.turns is turns and _has_news(s)], now_s)
                self._obey(turns)
        for turns in self._devices.values():
            if now_s >= turns.look_at_s:
                turns.look(now_s)
                self._obey(turns)

    def patience_s(self, most_s: float) -> float:
        """How long the engine may sleep. Called before each sleep: whoever is kept waiting sees that we
        live."""
        for seat in self._seats.values():
            words = seat.box.words
            words[PULSE_WORD] = (words[PULSE_WORD] + 1) & 0xFFFFFFFF
        if not self._devices:
            return most_s
        due_s = min(turns.look_at_s for turns in self._devices.values()) - time.monotonic()
        return min(most_s, max(0.0, due_s))

    def stand_down(self) -> None:
        """Before a cut, or the end: no rank is left behind a gate, or lowered."""
        for turns in self._devices.values():
            turns.stand_down(time.monotonic())
            self._obey(turns)

    def begin(self) -> None:
        """After a cut that was given up."""
        for turns in self._devices.values():
            turns.begin(time.monotonic())
            self._obey(turns)

    def counters(self) -> tuple[RankCounters, ...]:
        """What each rank has done."""
        found: list[RankCounters] = []
        for rank, boxes in sorted(self._boxes.items()):
            if boxes:
                found.append(self._counters(rank, boxes))
        return tuple(found)

    def _counters(self, rank: int, boxes: Sequence[Box]) -> RankCounters:
        sums = RankCounters(
            rank,
            sum(box.ops for box in boxes),
            sum(box.bytes for box in boxes),
            sum(self._sight.of(box.owner) for box in boxes),
        )
        seat = self._seats.get(rank)
        place = seat.turns.places.get(rank) if seat is not None else None
        if place is None:
            return sums
        seconds = list(place.seconds)
        seconds[place.phase] += time.monotonic() - place.since_s
        return replace(
            sums,
            computing_s=seconds[Phase.HOLDING],
            waiting_s=seconds[Phase.WAITING],
            queueing_s=seconds[Phase.READY],
            loose_s=seconds[Phase.LOOSE],
            turns=place.turns,
            slept=place.slept,
            taken=place.taken,
        )

    def _leave(self, rank: int) -> None:
        seat = self._seats.get(rank)
        if seat is not None:
            seat.turns.leave(rank, time.monotonic())
            self._obey(seat.turns)
            del self._seats[rank]
            seat.box.on_wake = None

    def _woken(self, seat: Seat) -> bool:
        """Something of a rank's is done. Whether it has to know before its turn comes."""
        words = seat.box.words
        lease = words[LEASE_WORD]
        if lease != _WITHHELD:
            return True
        self._touched.append(seat)
        return words[FEEDS_WORD] != 0

    # Orders.

    def _obey(self, turns: Turns) -> None:
        for order in turns.orders():
            self._do(order)
        self.active = bool(self._devices)

    def _do(self, order: Order) -> None:
        seat = self._seats[order.rank]
        box = seat.box
        match order.do:
            case Do.GRANT:
                seat.waits.clear()
                box.words[LEASE_WORD] = _HELD
                box.wake()
            case Do.QUIET:
                box.words[LEASE_WORD] = Lease.HELD_QUIETLY
            case Do.LOUD:
                box.words[LEASE_WORD] = _HELD
            case Do.WITHHOLD:
                box.words[LEASE_WORD] = _WITHHELD
            case Do.OPEN:
                self._open(box)
            case Do.LOWER:
                root = self._roots.get(order.rank)
                if root is not None and self._may_lower:
                    box.words[LOWERED_WORD] = 1
                    classes.lower(root)
            case Do.RAISE:
                self._raise(box)

    def _open(self, box: Box) -> None:
        if box.words[LEASE_WORD] != Lease.OFF:
            box.words[LEASE_WORD] = Lease.OFF
            box.words[DONE_WORD] = (box.words[DONE_WORD] + 1) & 0xFFFFFFFF
            box.wake()

    def _raise(self, box: Box) -> None:
        root = self._roots.get(box.tree)
        if root is not None and box.words[LOWERED_WORD]:
            classes.restore(root)
            box.words[LOWERED_WORD] = 0


def _outstanding(box: Box, slot: int) -> bool:
    """Whether what a rank waits for is not done."""
    if slot != ANY:
        return box.state(slot) == State.POSTED
    return any(box.body(posted).kind < KIND_GROUP for posted in box.slots_in(State.POSTED))


def _has_news(seat: Seat) -> bool:
    """Whether something that the rank waits for is done, or is over otherwise."""
    place = seat.turns.places.get(seat.box.tree)
    if place is None or place.phase in (Phase.READY, Phase.HOLDING):
        return False
    if place.phase == Phase.LOOSE:
        return True
    return any(slot == ANY or seat.box.state(slot) != State.POSTED for slot in seat.waits)
