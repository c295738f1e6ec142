"""Reading files for a writer: where their holes are, and blocks of what is between, with their cuts.

What of a block is in no chunk yet is copied in front of the next one, so a chunk always lies in one piece.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midstep.vault.store.budget import Pool
from midstep.vault.store.chunker import CARRY_LINES, LINE, PAGE, ZERO_LINES, Cut, Cutter, line_digests

HEAD = CARRY_LINES * LINE  # what has to be free in front of a block


@dataclass(frozen=True, slots=True)
class Block:
    """Cuts that are certain, and the bytes of a file that they are of: `data` begins at its byte `origin`."""

    cuts: list[Cut]
    data: memoryview
    origin: int
    buffer: bytearray | None = None  # goes back to the pool when the data is not needed any more


def blocks(descriptor: int, size: int, path: Path, buffers: Pool[bytearray]) -> Iterator[Block]:
    """A file of that many bytes. Buffers have HEAD bytes more than is read at a time. OSError."""
    cutter, carry = Cutter(), b""
    for begin, end, hole in extents(descriptor, size):
        if hole:
            origin = cutter.start * LINE
            yield Block(cutter.zeros(-(-(end - begin) // LINE)), memoryview(carry), origin)
            carry = b""
        else:
            at = begin
            while at < end:
                buffer = buffers.take()
                try:
                    block, carry = _read(descriptor, path, buffer, (at, end), carry, cutter)
                except BaseException:
                    buffers.give(buffer)
                    raise
                at += len(buffer) - HEAD
                yield block
    origin = cutter.start * LINE
    yield Block(cutter.finish(), memoryview(carry), origin)


def _read(
    descriptor: int, path: Path, buffer: bytearray, span: tuple[int, int], carry: bytes, cutter: Cutter
) -> tuple[Block, bytes]:
    """The block that begins the span, and what of it is in no chunk."""
    at, end = span
    view = memoryview(buffer)[: HEAD + min(len(buffer) - HEAD, end - at)]
    read_into(descriptor, view[HEAD:], at, path)
    view[HEAD - len(carry) : HEAD] = carry
    cuts = cutter.feed(line_digests(view[HEAD:]))
    left = bytes(view[HEAD + cutter.start * LINE - at :])
    return Block(cuts, view[HEAD - len(carry) :], at - len(carry), buffer), left


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
