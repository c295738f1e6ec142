"""Where ranks that share a GPU meet: a small file of their home. Standard library only.

::

    0     words: magic, change (a futex), parting, how many rows
    64    a semaphore of the C library: whoever has it may write
    4096  a row for each rank: state, pid, generation, how many segments; then the segments: bytes, handle

Ranks map each other's device memory, and nothing that is mapped survives the driver's checkpoint. So whoever
is about to checkpoint them asks them to part: each settles what it has under way, unmaps, and says so in its
row. ``parting`` is written from outside, by the agent, also with the lock; everything else by the ranks.
"""

from __future__ import annotations

import enum
from typing import List, Tuple

PREFIX = "midstep-ground-"
FOLDER = "/dev/shm"
SIGN = FOLDER + "/midstep-parting"
"""While it is there nobody arrives on any ground of the home: some may be made after ranks were asked."""
MAGIC = 0x6D736772
CHANGE_AT, PARTING_AT, COUNT_AT, LOCK_AT, ROWS_AT = 4, 8, 12, 64, 4096
SEGMENTS = 56  # of a rank, at most
HANDLE_BYTES = 64
_SEGMENT_BYTES = 8 + HANDLE_BYTES
ROW_BYTES = 16 + SEGMENTS * _SEGMENT_BYTES


class Stand(enum.IntEnum):
    """What a rank has said of itself in its row."""

    ABSENT = 0
    HERE = 1
    PARTING = 2  # it contributes nothing more
    SETTLED = 3  # and has taken what it needs of others
    PARTED = 4  # and maps nothing of theirs


def nbytes(rows: int) -> int:
    """The size of the file."""
    return -(-(ROWS_AT + rows * ROW_BYTES) // 4096) * 4096


def name(world: str, epoch: int, device: int) -> str:
    """The file's name. ``world``: a word for the job's world that all its ranks know."""
    return "%s%s-%d-%d" % (PREFIX, world, epoch, device)


def epoch_of(filename: str) -> int:
    """The epoch in such a name; -1: not one."""
    words = filename.rsplit("-", 2)
    return int(words[1]) if filename.startswith(PREFIX) and len(words) == 3 and words[1].isdigit() else -1


class Ground:
    """The file's memory, mapped by whoever looks at it."""

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._words = memory.cast("I")

    def release(self) -> None:
        """Before the memory is unmapped."""
        self._words.release()

    def begin(self, rows: int) -> None:
        """Fresh memory becomes a ground."""
        self._words[COUNT_AT // 4] = rows
        self._words[0] = MAGIC

    @property
    def is_one(self) -> bool:
        return self._words[0] == MAGIC

    @property
    def change(self) -> int:
        return self._words[CHANGE_AT // 4]

    def changed(self) -> None:
        """Something is to be seen here."""
        self._words[CHANGE_AT // 4] = (self.change + 1) & 0xFFFFFFFF

    @property
    def parting(self) -> bool:
        return self._words[PARTING_AT // 4] != 0

    @parting.setter
    def parting(self, parting: bool) -> None:
        self._words[PARTING_AT // 4] = int(parting)

    def stand(self, row: int) -> Stand:
        return Stand(self._words[_at(row) // 4])

    def stands(self) -> List[Stand]:
        return [self.stand(row) for row in range(self._words[COUNT_AT // 4])]

    def take(self, row: int, stand: Stand) -> None:
        self._words[_at(row) // 4] = stand

    def arrive(self, row: int, pid: int) -> None:
        """A rank is here, with no segments yet; what it had before is gone."""
        at = _at(row) // 4
        self._words[at + 1] = pid
        self._words[at + 2] = (self._words[at + 2] + 1) & 0xFFFFFFFF
        self._words[at + 3] = 0
        self._words[at] = Stand.HERE

    def generation(self, row: int) -> int:
        """How often the rank has arrived: its segments' numbers count anew each time."""
        return self._words[_at(row) // 4 + 2]

    def add(self, row: int, size: int, handle: bytes) -> int:
        """A segment of device memory that others may map; its number. OverflowError: too many."""
        number = self._words[_at(row) // 4 + 3]
        if number >= SEGMENTS:
            raise OverflowError("more than %d segments" % SEGMENTS)
        at = _at(row) + 16 + number * _SEGMENT_BYTES
        self._bytes[at : at + 8] = size.to_bytes(8, "little")
        self._bytes[at + 8 : at + 8 + HANDLE_BYTES] = handle.ljust(HANDLE_BYTES, b"\0")
        self._words[_at(row) // 4 + 3] = number + 1
        return number

    def segment(self, row: int, number: int) -> Tuple[int, bytes]:
        """Its bytes and its handle."""
        at = _at(row) + 16 + number * _SEGMENT_BYTES
        size = int.from_bytes(self._bytes[at : at + 8], "little")
        return size, bytes(self._bytes[at + 8 : at + 8 + HANDLE_BYTES])


def _at(row: int) -> int:
    return ROWS_AT + row * ROW_BYTES
