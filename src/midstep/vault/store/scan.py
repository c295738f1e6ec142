"""What a file consists of: the ids of its chunks. A large file is looked through by a process of its own.

For every chunk there are a dozen short calls (child.py says why that matters). The process tells nothing but
ids: what is not known yet is read again by a thread of the writer, out of the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from midstep.vault.backends.base import Buffer
from midstep.vault.store.child import Child, Killed
from midstep.vault.store.chunker import LINE, Cutter, fine_ends, line_digests, pieces
from midstep.vault.store.content import ZERO, ChunkId
from midstep.vault.store.files import Block, blocks

BLOCK = 1 << 20  # read, cut and hashed while it is in the processor's cache
_BLOCKS = 3  # whose chunks are told at a time
Chunks = list[tuple[ChunkId, int]]  # with their lengths; runs of zeros are under ZERO


def whole(data: Buffer) -> tuple[Chunks, list[memoryview]]:
    """The chunks of bytes in memory: all of them, and the content of those that are no zeros."""
    cutter, digests = Cutter(), line_digests(data)
    cuts = cutter.feed(digests) + cutter.finish()
    return _hashed(Block(cuts, memoryview(data), 0, fine_ends(digests)), len(data))


def scan(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
    """A file's chunks, some at a time. OSError."""
    some = Chunks()
    for number, block in enumerate(blocks(descriptor, size, path, BLOCK), 1):
        some += _hashed(block, size)[0]
        if number % _BLOCKS == 0:
            yield some
            some = Chunks()
    yield some


def scan_apart(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
    """The same, found by a child, which ends with the iterator or with us. OSError: also when it was
    killed."""
    child = Child(lambda: scan(descriptor, size, path), [descriptor])
    try:
        while (said := child.hear()) is not None:
            yield said
    except Killed:
        raise OSError(f"{path} was not read to its end: the process that did so was killed") from None
    finally:
        child.end()


def _hashed(block: Block, size: int) -> tuple[Chunks, list[memoryview]]:
    """The chunks of a block, of a stream of that many bytes."""
    found, plain = Chunks(), list[memoryview]()
    data, origin = block.data, block.origin // LINE
    for cut in block.cuts:
        if cut.zero:
            found.append((ZERO, min(cut.end * LINE, size) - cut.start * LINE))
            continue
        start, end = cut.start - origin, cut.end - origin
        for piece in pieces(data[start * LINE : end * LINE], block.fine, start):
            found.append((blake3(piece).digest(), len(piece)))
            plain.append(piece)
    return found, plain
