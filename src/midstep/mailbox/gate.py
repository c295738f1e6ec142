"""The owner's side of a lease: while another rank computes on the device, results stay in the mailbox.

A rank that waits says so, and the proxy gives the device to another one; it is woken when its turn has come.
Nothing here can hold a rank for good: a proxy that minds the gate also moves its pulse, and when that stands
still the gate is open. Standard library only.
"""

from __future__ import annotations

import time
from typing import Optional

from . import futex
from .core import Core
from .seat import FEEDS_WORD, LEASE_WORD, PULSE_WORD, Lease, Seating, note, read_seat

_OFF, _WITHHELD = int(Lease.OFF), int(Lease.WITHHELD)
_STILL = 6  # slices without a pulse: 3 s
_ASK_S = 0.2  # between two reminders


class Gate:
    """One per mailbox; any thread may call."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._words = core.words
        self.held_up = False  # somebody could not finish something; for the pump
        self._pulse = -1
        self._still = 0
        self._asked_s = 0.0

    @property
    def shared(self) -> bool:
        """Whether the device has other ranks of the job that take turns with this one."""
        return self._words[LEASE_WORD] != 0

    @property
    def shut(self) -> bool:
        """Whether it is another rank's turn."""
        words = self._words
        if words[LEASE_WORD] != _WITHHELD:
            return False
        if self._still >= _STILL and words[PULSE_WORD] != self._pulse:
            self._still = 0
        return self._still < _STILL

    @property
    def feeds(self) -> bool:
        """Whether the owner has to know of each chunk that is done, whoever's turn it is."""
        return self._words[FEEDS_WORD] != 0

    @feeds.setter
    def feeds(self, feeds: bool) -> None:
        if self._words[FEEDS_WORD] != feeds:
            self._words[FEEDS_WORD] = feeds

    def seating(self) -> Optional[Seating]:
        """Who shares the device; None when no proxy has said it yet."""
        return read_seat(self.core.file)

    def give_up(self, slot: Optional[int] = None) -> None:
        """This rank is about to sleep: until a slot (or ANY) has an outcome, or (None) for something that the
        proxy does not see; ``linger`` until it is not ``shut`` afterwards."""
        self._asked_s = 0.0
        if self._words[LEASE_WORD] != _OFF:
            self._say(note(slot))

    def linger(self, seen: int, slice_s: float) -> None:
        """Sleep while the gate is shut, a slice at most. ``seen``: the core's done word, read before."""
        now_s = time.monotonic()
        if not 0 <= now_s - self._asked_s < _ASK_S:
            self._asked_s = now_s
            self._say(note(None, want=True))
        futex.wait(self.core.done_address, seen, slice_s)
        if time.monotonic() - now_s >= slice_s:
            pulse = self._words[PULSE_WORD]
            self._still = self._still + 1 if pulse == self._pulse else 0
            self._pulse = pulse

    def _say(self, entry: int) -> None:
        core = self.core
        with core.lock:
            core.ring(entry)
        futex.wake(core.posted_address)
