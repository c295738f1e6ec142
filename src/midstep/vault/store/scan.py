"""What a file consists of: the ids of its chunks. A large file is looked through by a process of its own.

For every chunk there are a dozen short calls, most of which let go of the interpreter's lock; threads that do
so at a time wait for each other more than they work. A forked process has a lock of its own. It writes
nothing but ids: what is not known yet is read again by a thread of the writer, out of the page cache.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NoReturn

from blake3 import blake3

from midstep.vault.backends.base import Buffer
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
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if not child:
        _tell(theirs, descriptor, size, path)
    theirs.close()
    try:
        while (said := ours.recv()) is not None:
            if isinstance(said, BaseException):
                raise said
            yield said
    except EOFError:
        raise OSError(f"{path} was not read to its end: the process that did so was killed") from None
    finally:
        ours.close()
        os.kill(child, signal.SIGKILL)  # it is done, or nobody wants the rest
        os.waitpid(child, 0)


def _tell(to: Connection, descriptor: int, size: int, path: Path) -> NoReturn:
    """In the child. What the other threads of our parent were about is not known here: so nothing of theirs
    is touched, neither locks nor descriptors."""
    try:
        gc.disable()  # it would copy what we share with our parent
        _close_but(descriptor, to.fileno())
        for some in scan(descriptor, size, path):
            to.send(some)
        to.send(None)
    except BrokenPipeError:  # nobody wants it any more
        pass
    except OSError as error:
        to.send(error)
    finally:
        os._exit(0)


def _close_but(*descriptors: int) -> None:
    """Others than these: the ends of other pipes, and files that are locked as long as any process has them
    open."""
    first = 3
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


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
