"""The proxy's engine: one thread that waits for mailboxes and frames, and carries out what is complete."""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from midstep.mailbox import futex
from midstep.mailbox.contract import Kind
from midstep.mailbox.layout import KIND_GROUP, KIND_STORE, SLOTS, State
from midstep.proxy.boxes import Box, Posted
from midstep.proxy.counters import Counters
from midstep.proxy.frames import Frames
from midstep.proxy.groups import Group, GroupKey
from midstep.proxy.match import Collectives
from midstep.proxy.membership import Membership
from midstep.proxy.pairs import Pairs
from midstep.proxy.peers import Link
from midstep.proxy.requests import Requests
from midstep.proxy.seats import Seats
from midstep.proxy.store import Store
from midstep.proxy.wires import Wires
from midstep.wire.proxy import Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_IDLE_S = 0.25
_LOOKED_AT = (State.POSTED, State.DONE, State.CLOSED)
_DONE, _SEND = int(State.DONE), int(Kind.SEND)
_ACKS_S = 0.002  # how long acknowledgements may wait for company


class Engine:
    """All methods but ``call``, ``deliver`` and ``changed`` belong to the engine's thread."""

    def __init__(self, index: int, store: Store | None, seats: Seats | None = None) -> None:
        self.index = index
        self.seats = seats or Seats(0, {})
        self.counters = Counters()
        self.boxes: list[Box] = []
        self.past: dict[int, tuple[float, int]] = {}  # rank -> carried_s, reduced_bytes of boxes that went
        self.frozen = False  # after a cut: nothing is touched any more
        self.wires = Wires(self.counters)
        self.requests = Requests(self.wires, store, index)
        self._collectives = Collectives(self.wires, self.counters)
        self._pairs = Pairs(self.wires, self.counters)
        self.membership = Membership(
            index, self.wires, self._collectives, self._pairs, self._placed, self._settled
        )
        self.frames = Frames(
            self.wires, self.membership, self._collectives, self._pairs, self.requests, self.counters
        )
        self._deferred: dict[GroupKey, list[tuple[Box, int]]] = {}  # (tree, gid): posts of groups not placed
        self._held: list[Callable[[], None]] = []  # what came while we were frozen
        self._calls: deque[Callable[[], None]] = deque()
        self._poke = ctypes.c_uint32(0)
        self._stopping = False
        self._watch()

    # From any thread.

    def call(self, fn: Callable[..., None], *args: Any) -> None:
        """Have the engine's thread call ``fn``."""
        self._calls.append(lambda: fn(*args))
        self._poke.value = (self._poke.value + 1) & 0xFFFFFFFF
        futex.wake(ctypes.addressof(self._poke))

    def deliver(self, link: Link, head: Head, data: Bytes) -> None:
        """A frame came."""
        self.call(self._frame, link, head, data)

    def changed(self, link: Link) -> None:
        """A connection came up or went down."""
        self.call(self.frames.link, link)

    # The loop.

    def run(self) -> None:
        """Work until ``stop``."""
        calls = self._calls
        while not self._stopping:
            poked = self._poke.value
            moved = False
            while calls:
                calls.popleft()()
                moved = True
            if not self.frozen and (self._look() or self._collectives.advance()):
                moved = True
            if self.seats.active and not self.frozen:
                self.seats.turn()
            if not moved:
                self._pause(poked)

    def stop(self) -> None:
        """Let ``run`` return."""
        self._stopping = True

    def settle(self) -> None:
        """Handle everything that is posted."""
        while self._look() or self._collectives.advance():
            pass

    def _look(self) -> bool:
        moved = False
        for box in self.boxes:
            slots = box.posted()
            if slots:
                moved = True
                for slot in slots:
                    self._slot(box, slot)
        return moved

    def _pause(self, poked: int) -> None:
        if self.frozen:
            futex.wait(ctypes.addressof(self._poke), poked)
            return
        pending = self.wires.pending
        started = time.perf_counter()
        timeout_s = _ACKS_S if pending else _IDLE_S
        if self.seats.active:
            timeout_s = self.seats.patience_s(timeout_s)
        self._waits.wait([poked, *[box.head for box in self.boxes]], timeout_s)
        waited = time.perf_counter() - started
        self.counters.waiting_s += waited
        if pending:
            self.wires.flush()
        if waited >= _IDLE_S / 2:
            self.membership.sweep()

    def thaw(self) -> None:
        """Go on after a cut. Other nodes may have gone on before: what they have said since is heard now."""
        self.frozen = False
        held, self._held = self._held, []
        for work in held:
            work()

    def _frame(self, link: Link, head: Head, data: Bytes) -> None:
        if self.frozen:
            self._held.append(partial(self.frames.frame, link, head, data))
        else:
            self.frames.frame(link, head, data)

    # Mailboxes.

    def attach(self, box: Box) -> None:
        """A mailbox was found: take over what is in it, groups first, then what an earlier proxy has done."""
        self.boxes.append(box)
        self._watch()
        fresh: list[Group] = []
        for slot in box.slots_in(State.POSTED, State.CLOSED):
            if box.body(slot).kind == KIND_GROUP:
                fresh.append(self.membership.define(box, slot))
        for state in (State.DONE, State.POSTED):
            for slot in box.slots_in(state):
                if box.body(slot).kind != KIND_GROUP:
                    self._slot(box, slot)
        for group in fresh:
            self.membership.look(group)
        self.seats.attach(box)

    def detach(self, box: Box, how: str) -> None:
        """A mailbox's owner has ended; ``how`` in words, after "rank N"."""
        if self.frozen:
            self._held.append(partial(self.detach, box, how))
            return
        if box not in self.boxes:
            return
        self._look()
        self.boxes.remove(box)
        carried_s, reduced_bytes = self.past.get(box.tree, (0.0, 0))
        self.past[box.tree] = (carried_s + box.carried_s, reduced_bytes + box.reduced_bytes)
        self._watch()
        self.seats.detach(box)
        self.requests.forget(box)
        self.membership.gone(box, how)
        box.close()

    def _watch(self) -> None:
        addresses = [ctypes.addressof(self._poke), *[box.posted_address for box in self.boxes]]
        self._waits = futex.WaitMany(addresses)

    def _slot(self, box: Box, slot: int) -> None:
        if slot >= SLOTS:
            self.seats.noted(box, slot)
            return
        state = box.state(slot)
        if state not in _LOOKED_AT:
            return
        body = box.body(slot)
        if body.kind == KIND_STORE:
            self.requests.posted(Posted(box, slot, body, -1))
            return
        if body.kind == KIND_GROUP:
            self.membership.look(self.membership.define(box, slot))
            return
        group = box.groups.get(body.gid)
        if group is None or not group.node_of:
            self._deferred.setdefault((box.tree, body.gid), []).append((box, slot))
            return
        post = Posted(box, slot, body, group.me_of[box.uid])
        if body.kind >= _SEND:
            self._pairs.posted(group, post, state == _DONE)
        else:
            self._collectives.posted(group, post, state == _DONE)

    def _placed(self, group: Group) -> None:
        for key in [key for key in self._deferred if key[1] == group.gid]:
            for box, slot in self._deferred.pop(key):
                self._slot(box, slot)

    def _settled(self, group: Group) -> None:
        self.frames.settled(group)
