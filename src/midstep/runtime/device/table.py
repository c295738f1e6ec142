"""The operations of one group whose ranks share a home: which way each goes, who has contributed, where its
result lies.

A file of the home: a head (change, a futex; at 64 the lock, with which everything is written) and entries of
one operation each, found by the operation's number. Whoever comes first decides its way, by where it sees the
ranks sit: over the GPU that they share, or by the mailbox. An entry serves its next operation when every
member is through with the one before.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import Generator, NamedTuple

from ...mailbox import futex
from ...mailbox.lock import SharedLock
from ..meeting import open_once
from ..splice.maps import unmap, view

ENTRIES = 256
_SEQ, _NBYTES = 0, 1  # 64 bits each; then words:
_CODE, _COUNT, _READY, _TAKEN, _ROOT, _WAY = 4, 5, 6, 7, 8, 9
_ROWS_AT, _ROW_BYTES = 40, 24  # contributed, segment, generation, -, offset (64 bits)
_CHANGE_AT, _LOCK_AT, _ENTRIES_AT = 4, 64, 128


class Way(enum.IntEnum):
    """How an operation goes."""

    BUSY = -1  # its entry still serves an earlier one
    OPEN = 0  # nobody has come, or all have withdrawn
    DEVICE = 1
    MAIL = 2


class Spot(NamedTuple):
    """A piece of a rank's device memory that others can find."""

    generation: int
    segment: int
    offset: int  # bytes


class Table:
    """One rank's view of it."""

    def __init__(self, path: str, members: int, who: str) -> None:
        """Raises OSError."""
        self.path = path
        self.members = members
        self._entry_bytes = -(-(_ROWS_AT + members * _ROW_BYTES) // 64) * 64
        self._size = -(-(_ENTRIES_AT + ENTRIES * self._entry_bytes) // 4096) * 4096
        self._base = open_once(path, self._size, who, lambda base: SharedLock.begin(base + _LOCK_AT))
        self.change_at = self._base + _CHANGE_AT
        self._lock = SharedLock(self._base + _LOCK_AT)
        memory = view(self._base, self._size)
        self._words, self._longs = memory.cast("I"), memory.cast("Q")

    @property
    def change(self) -> int:
        return self._words[_CHANGE_AT // 4]

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Write; whoever waits looks again afterwards."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._words[_CHANGE_AT // 4] = (self.change + 1) & 0xFFFFFFFF
            self._lock.release()
            futex.wake(self.change_at)

    def claim(self, seq: int, nbytes: int, code: int) -> Way:
        """The operation's way; OPEN: the caller may decide, by ``contribute`` or ``mail``.

        Raises ValueError where members do not mean the same operation.
        """
        word, long = self._at(seq)
        if self._longs[long + _SEQ] == seq + 1:
            if (self._longs[long + _NBYTES], self._words[word + _CODE]) != (nbytes, code):
                theirs = self._longs[long + _NBYTES]
                raise ValueError("the ranks do not agree: %d bytes here, %d elsewhere" % (nbytes, theirs))
            return Way(self._words[word + _WAY])
        used = self._longs[long + _SEQ] and self._words[word + _WAY]
        if used and self._words[word + _TAKEN] < self.members:
            return Way.BUSY
        self._reset(seq, nbytes, code)
        return Way.OPEN

    def way(self, seq: int) -> Way:
        """The way of an operation that has an entry."""
        return Way(self._words[self._at(seq)[0] + _WAY])

    def mail(self, seq: int) -> None:
        """This rank posts it on the mailbox: so must all."""
        word = self._at(seq)[0]
        self._words[word + _WAY] = Way.MAIL
        self._words[word + _TAKEN] += 1

    def _reset(self, seq: int, nbytes: int, code: int) -> None:
        word, long = self._at(seq)
        words = self._words
        for at in (_COUNT, _READY, _TAKEN, _ROOT, _WAY):
            words[word + at] = 0
        for row in range(self.members):
            words[word + (_ROWS_AT + row * _ROW_BYTES) // 4] = 0
        words[word + _CODE] = code
        self._longs[long + _NBYTES] = nbytes
        self._longs[long + _SEQ] = seq + 1

    def is_of(self, seq: int) -> bool:
        """Whether the operation has an entry."""
        return self._longs[self._at(seq)[1] + _SEQ] == seq + 1

    def count(self, seq: int) -> int:
        """How many have contributed."""
        return self._words[self._at(seq)[0] + _COUNT] if self.is_of(seq) else 0

    def contribute(self, seq: int, row: int, spot: Spot) -> int:
        """This rank's part lies there; how many have contributed now."""
        word = self._at(seq)[0]
        self.move(seq, row, spot)
        self._words[word + (_ROWS_AT + row * _ROW_BYTES) // 4] = 1
        self._words[word + _WAY] = Way.DEVICE
        self._words[word + _COUNT] += 1
        return self._words[word + _COUNT]

    def move(self, seq: int, row: int, spot: Spot) -> None:
        """The part, or the result in its place, lies there."""
        at = self._at(seq)[0] + (_ROWS_AT + row * _ROW_BYTES) // 4
        self._words[at + 1], self._words[at + 2] = spot.segment, spot.generation
        self._longs[(at + 4) // 2] = spot.offset

    def withdraw(self, seq: int, row: int) -> None:
        """This rank's part is of no use any more."""
        word = self._at(seq)[0]
        self._words[word + (_ROWS_AT + row * _ROW_BYTES) // 4] = 0
        self._words[word + _COUNT] -= 1
        if self._words[word + _COUNT] == 0:
            self._words[word + _WAY] = Way.OPEN

    def has(self, seq: int, row: int) -> bool:
        """Whether this rank has contributed."""
        return self._words[self._at(seq)[0] + (_ROWS_AT + row * _ROW_BYTES) // 4] == 1

    def spot(self, seq: int, row: int) -> Spot:
        at = self._at(seq)[0] + (_ROWS_AT + row * _ROW_BYTES) // 4
        return Spot(self._words[at + 2], self._words[at + 1], self._longs[(at + 4) // 2])

    def finish(self, seq: int, root: int) -> None:
        """The result lies in this rank's place, and it has it."""
        word = self._at(seq)[0]
        self._words[word + _ROOT] = root
        self._words[word + _TAKEN] = 1
        self._words[word + _READY] = 1

    def ready(self, seq: int) -> bool:
        """Whether the result is there."""
        return self.is_of(seq) and self._words[self._at(seq)[0] + _READY] == 1

    def root(self, seq: int) -> int:
        """In whose place the result lies."""
        return self._words[self._at(seq)[0] + _ROOT]

    def took(self, seq: int) -> None:
        """One more has the result."""
        self._words[self._at(seq)[0] + _TAKEN] += 1

    def over(self, seq: int) -> bool:
        """Whether nobody needs what lies in any rank's place."""
        return not self.is_of(seq) or self._words[self._at(seq)[0] + _TAKEN] >= self.members

    def close(self) -> None:
        """Unmap it."""
        if self._base:
            base, self._base = self._base, 0
            unmap(base, self._size)

    def _at(self, seq: int) -> "tuple[int, int]":
        start = _ENTRIES_AT + seq % ENTRIES * self._entry_bytes
        return start // 4, start // 8
