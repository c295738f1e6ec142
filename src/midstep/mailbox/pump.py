"""Keeps large operations and tickets with callbacks going. Standard library only.

One thread at a time has the *right* to advance large operations: the pump's own thread, or, in its place, a
thread that waits for one of them anyway (then nothing is handed from thread to thread).
"""

from __future__ import annotations

import collections
import threading
from typing import Deque, List, Optional

from . import futex
from .core import Core
from .gate import Gate
from .patience import Patience
from .seat import ANY
from .tickets import WINDOW, Flight, Large

_LATER = 2  # and of the others: enough that none can block another


class Pump:
    """The background half of a channel; its thread starts when it is first needed."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._core = core
        self._gate = gate
        self._right = threading.Lock()
        self._large: Deque[Large] = collections.deque()
        self._watched: List[Flight] = []
        self._guard = threading.Lock()
        self._helpers = 0
        self._work = threading.Semaphore(0)
        self._thread: Optional[threading.Thread] = None

    @property
    def backlog(self) -> bool:
        """Whether a large operation is under way."""
        return bool(self._large)

    def add(self, ticket: Large) -> None:
        """Take over a large operation: its first chunks are posted at once, by the caller."""
        with self._guard:
            self._large.append(ticket)
            first = self._large[0] is ticket
        if first and self._right.acquire(blocking=False):
            try:
                ticket.advance(WINDOW)
            finally:
                self._right.release()
        self._stir()  # also for one in place: the proxy may ask for chunks, and others wait for those

    def watch(self, ticket: Flight) -> None:
        """Complete a ticket without anybody waiting for it."""
        if not isinstance(ticket, Large):
            with self._guard:
                self._watched.append(ticket)
        self._stir()

    def help_once(self) -> None:
        """Advance what can be advanced, if nobody else is at it."""
        if self._right.acquire(blocking=False):
            try:
                self._advance()
            finally:
                self._right.release()

    def help(self, ticket: Large, patience: Patience) -> bool:
        """Advance everything until ``ticket`` is finished; False when patience ran out before."""
        self.help_once()
        if ticket.finished:
            return True
        if patience.left_s is None or patience.left_s > 0:
            slot = ticket.whole_slot
            self._gate.give_up(ANY if slot is None else slot)
        with self._guard:
            self._helpers += 1
        try:
            while not ticket.finished:
                slice_s = patience.slice_s() if not ticket.there else futex.SLICE_S
                if self._right.acquire(blocking=False):
                    try:
                        self._sleep_unless_moved(slice_s)
                    finally:
                        self._right.release()
                else:
                    futex.wake(self._core.done_address)  # the pump's thread sees that it is relieved
                    if self._right.acquire(timeout=min(0.02, slice_s)):
                        self._right.release()
                if patience.over() and not ticket.finished and not ticket.there:
                    return False
            return True
        finally:
            with self._guard:
                self._helpers -= 1
            if self._large or self._watched:
                self._stir()

    def stop(self) -> None:
        """Let the thread end."""
        futex.wake(self._core.done_address)
        self._work.release()

    def _stir(self) -> None:
        if self._thread is None:
            with self._guard:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="midstep-pump", daemon=True)
                    self._thread.start()
        self._work.release()

    def _run(self) -> None:
        while not self._core.closed:
            if self._helpers or not (self._large or self._watched):
                self._work.acquire()
                while self._work.acquire(blocking=False):
                    pass
                continue
            with self._right:
                self._sleep_unless_moved(futex.SLICE_S)

    def _sleep_unless_moved(self, slice_s: float) -> None:
        seen = self._core.done_word()
        gate = self._gate
        gate.held_up = False
        if self._advance():
            return
        if gate.held_up:
            gate.linger(seen, slice_s)
        else:
            futex.wait(self._core.done_address, seen, slice_s)

    def _advance(self) -> bool:
        moved = False
        window = WINDOW
        for ticket in tuple(self._large):
            moved |= ticket.advance(window)
            window = _LATER
            if ticket.finished:
                with self._guard:
                    self._large.remove(ticket)
                window = WINDOW
        self._gate.feeds = any(ticket.feeding for ticket in self._large)
        shut = self._gate.shut
        for watched in tuple(self._watched):
            if shut and not watched.finished:
                self._gate.held_up |= watched.there
                continue
            if not watched.finished:
                moved |= watched.advance()
            if watched.finished:
                moved = True
                with self._guard:
                    self._watched.remove(watched)
        return moved
