"""Where the sharers of one optimizer meet: a small file that all of them map.

::

    0    words: magic, change (the futex), phase; 64 bits each: done (the last step made for all), due (the
         step of a rank's own count at which to try again)
    64   a semaphore of the C library: whoever has it may write
    128  why it was closed
    1024 a row for each sharer: left (its owner's own, written without the lock), joined, arrived, digest

A board is used once: EMPTY, PUBLISHING, OPEN and EXECUTING in turns, CLOSED. After it is closed nobody writes
the arena any more, so what ranks still map of it stays as it is. A rank may be frozen, dumped and restored at
any instant, with the lock too: all of this is memory in a file of the home, and all sharers move together.
"""

from __future__ import annotations

import enum
import struct
from contextlib import contextmanager
from typing import Generator, Iterator, Sequence, Tuple

from ...mailbox import futex
from ...mailbox.lock import SharedLock
from ..meeting import open_once, remove
from .maps import PAGE, unmap, view

_MAGIC = 0x6D73706C
_CHANGE_AT, _PHASE_AT, _DONE_AT, _DUE_AT, _LOCK_AT, _TEXT_AT, _ROWS_AT = 4, 8, 16, 24, 64, 128, 1024
TEXT_BYTES = 896
_ROW = struct.Struct("=IIQ16s")  # left, joined, arrived, digest
_ROW_BYTES = 64


class Phase(enum.IntEnum):
    """A board's life."""

    EMPTY = 0  # nobody has come
    PUBLISHING = 1  # the first fills the arena
    OPEN = 2  # steps may be made for all
    EXECUTING = 3  # one is being made; never ends but by OPEN or CLOSED
    CLOSED = 4


class Left(enum.IntEnum):
    """Why a rank will not come to this board again."""

    NO = 0
    FORKED = 1  # a child holds the arena as it is
    GONE = 2  # the optimizer, or the process, has ended
    MOVED = 3  # other sharers, or another epoch


class Board:
    """One rank's view of it."""

    def __init__(self, path: str, members: Sequence[int], me: int) -> None:
        """Open the board, making it if need be. Raises OSError."""
        self.path = path
        self.members = tuple(members)
        self._row = self.members.index(me)
        self._size = -(-(_ROWS_AT + _ROW_BYTES * len(members)) // PAGE) * PAGE
        self._base = open_once(path, self._size, "%d" % me, _begin)
        self._memory = view(self._base, self._size)
        self._change = self._base + _CHANGE_AT

    # Read by anybody at any time.

    @property
    def change(self) -> int:
        return self._word(_CHANGE_AT)

    @property
    def phase(self) -> Phase:
        return Phase(self._word(_PHASE_AT))

    @property
    def done(self) -> int:
        """How many steps have been made for all."""
        return struct.unpack_from("=Q", self._memory, _DONE_AT)[0]

    @property
    def due(self) -> int:
        """When to try again, once it is closed."""
        return struct.unpack_from("=Q", self._memory, _DUE_AT)[0]

    @property
    def text(self) -> str:
        """Why it was closed."""
        return bytes(self._memory[_TEXT_AT : _TEXT_AT + TEXT_BYTES]).rstrip(b"\0").decode("utf-8", "replace")

    def somebody_left(self) -> Left:
        """Whether, and why, a sharer has left."""
        for row in range(len(self.members)):
            left = self._word(_ROWS_AT + row * _ROW_BYTES)
            if left:
                return Left(left)
        return Left.NO

    def rows(self) -> Iterator[Tuple[int, int, bytes]]:
        """Of every sharer: joined, arrived, digest."""
        for row in range(len(self.members)):
            _, joined, arrived, digest = _ROW.unpack_from(self._memory, _ROWS_AT + row * _ROW_BYTES)
            yield joined, arrived, digest

    def wait(self, seen: int, slice_s: float) -> None:
        """Sleep until something changes; ``seen``: the change word, read before looking."""
        futex.wait(self._change, seen, slice_s)

    # Written with the lock.

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Hold the lock, a few microseconds. Its holder may be frozen: waits as long as it takes."""
        lock = SharedLock(self._base + _LOCK_AT)
        lock.acquire()
        try:
            yield
        finally:
            self._put(_CHANGE_AT, (self.change + 1) & 0xFFFFFFFF)
            lock.release()
            futex.wake(self._change)

    def enter(self, phase: Phase) -> None:
        self._put(_PHASE_AT, phase)

    def close(self, reason: str, due: int) -> None:
        """For good; what is said first stays."""
        if self.phase != Phase.CLOSED:
            struct.pack_into("=Q", self._memory, _DUE_AT, due)
            text = reason.encode()[:TEXT_BYTES]
            self._memory[_TEXT_AT : _TEXT_AT + len(text)] = text
            self.enter(Phase.CLOSED)

    def join(self) -> None:
        """This rank maps the arena."""
        struct.pack_into("=I", self._memory, self._my_row() + 4, 1)

    def arrive(self, step: int, digest: bytes) -> None:
        """This rank is at a step, and has found ``digest``."""
        struct.pack_into("=Q16s", self._memory, self._my_row() + 8, step, digest)

    def finish(self, step: int) -> None:
        """A step was made for all."""
        struct.pack_into("=Q", self._memory, _DONE_AT, step)
        self.enter(Phase.OPEN)

    # Written by this rank alone, at any moment: also while it is forking or ending.

    def leave(self, why: Left) -> None:
        """Never come again."""
        if self._base and not self._word(self._my_row()):
            self._put(self._my_row(), why)
            futex.wake(self._change)

    def drop(self, moved: bool = False) -> bool:
        """Unmap it; the last one to do so removes the file. ``moved``: those who have not joined never will.
        Whether this was the last."""
        if not self._base:
            return False
        rows = [
            _ROW.unpack_from(self._memory, _ROWS_AT + row * _ROW_BYTES) for row in range(len(self.members))
        ]
        last = all(left or (moved and not joined) for left, joined, _, _ in rows)
        if last:
            remove(self.path)
        base, self._base = self._base, 0
        self._memory.release()
        unmap(base, self._size)
        return last

    def _my_row(self) -> int:
        return _ROWS_AT + self._row * _ROW_BYTES

    def _word(self, at: int) -> int:
        return struct.unpack_from("=I", self._memory, at)[0]

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("=I", self._memory, at, value)


def _begin(base: int) -> None:
    struct.pack_into("=I", view(base, 4), 0, _MAGIC)
    SharedLock.begin(base + _LOCK_AT)
