"""Reading files for a writer: where their holes are, and blocks of what is between, with their cuts.

What of a block is in no chunk yet is copied in front of the next one, so a chunk always lies in one piece.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midstep.vault.store.chunker import CARRY_LINES, LINE, PAGE, ZERO_LINES, Cut, Cutter, line_digests

_HEAD = CARRY_LINES * LINE  # what has to be free in front of a block


@dataclass(frozen=True, slots=True)
class Block:
    """Cuts that are certain, and the bytes of a file that they are of: `data` begins at its byte `origin`,
    where the lines that pieces may end with are counted from, too."""

    cuts: list[Cut]
    data: memoryview
    origin: int
    fine: list[int]


def blocks(descriptor: int, size: int, path: Path, block: int) -> Iterator[Block]:
    """A file of that many bytes, so many read at a time (whole pages). The data of each holds until the next
    one. OSError."""
    cutter, carry = Cutter(), b""
    buffer = memoryview(bytearray(_HEAD + min(block, size)))
    for begin, end, hole in extents(descriptor, size):
        if hole:
            origin = cutter.start * LINE
            cuts = cutter.zeros(-(-(end - begin) // LINE))
            yield Block(cuts, memoryview(carry), origin, cutter.fine)
            carry = b""
            continue
        for at in range(begin, end, block):
            whole = buffer[: _HEAD + min(block, end - at)]
            read_into(descriptor, whole[_HEAD:], at, path)
            whole[_HEAD - len(carry) : _HEAD] = carry
            data, origin = whole[_HEAD - len(carry) :], at - len(carry)
            cuts = cutter.feed(line_digests(whole[_HEAD:]))
            carry = bytes(data[cutter.start * LINE - origin :])
            yield Block(cuts, data, origin, cutter.fine)
    origin = cutter.start * LINE
    yield Block(cutter.finish(), memoryview(carry), origin, cutter.fine)


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, hole) in order, without gaps, all at pages' boundaries but the end. Holes too short to
    count as a run of zeros are data."""
    at = 0
    for begin, end in _holes(descriptor, size):
        if at < begin:
            yield at, begin, False
        yield begin, end, True
        at = end
    if at < size:
        yield at, size, False


def _holes(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        hole = at
        try:
            hole = os.lseek(descriptor, at, os.SEEK_HOLE)
            data = os.lseek(descriptor, hole, os.SEEK_DATA) if hole < size else size
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but hole to the end
                data = size
            elif error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return  # a file system that does not say
            else:
                raise
        hole = min(hole, size)
        begin = -(-hole // PAGE) * PAGE
        end = size if data >= size else data // PAGE * PAGE
        if end - begin >= ZERO_LINES * LINE:
            yield begin, end
        at = max(data, at + 1)


def read_into(descriptor: int, buffer: memoryview, at: int, path: Path) -> None:
    """Fill the buffer from the file's position. OSError when it ends before."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], at + done)
        if not count:
            raise OSError(errno.EIO, f"{path} became shorter while it was read (at {at + done} bytes)")
        done += count
