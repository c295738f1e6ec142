"""A writer: files in, chunks out, on all processors and in bounded memory.

A driver thread reads a file block by block and decides the cuts (files.py); the chunks of a block are hashed,
looked up, compressed and packed by the workers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias

from blake3 import blake3

from midstep.env.ids import Ids
from midstep.vault.backends.base import Backend
from midstep.vault.store import codec
from midstep.vault.store.budget import Budget, Pool
from midstep.vault.store.chunker import LINE, Cut, Cutter, line_digests, pieces
from midstep.vault.store.content import ZERO, ChunkId, Content, Progress, Stats
from midstep.vault.store.files import HEAD, Block, blocks, read_into
from midstep.vault.store.index import PackTable
from midstep.vault.store.sink import Sink

_WHOLE = 256 << 10  # smaller files are read and hashed by their driver, in one go
_DRIVERS = 4
Chunks: TypeAlias = list[tuple[ChunkId, int]]
_numbers = attrgetter(*(f.name for f in fields(Stats)))


class Known(Protocol):
    """What a writer asks and tells the repository."""

    def known(self, ids: Sequence[ChunkId]) -> list[bool]: ...

    def indexed(self, name: str, tables: Sequence[PackTable]) -> None: ...


class Writer:
    """Adds files and bytes to a repository; made by `Repository.writer`.

    After `finish` everything added is durable and indexed; before, nothing refers to it. Leaving the context
    without an error finishes; with one, the writer is abandoned (what it stored already is an orphan or
    unreferred to, and is used by the next writer or collected).
    """

    def __init__(
        self,
        backend: Backend,
        budget: Budget,
        ids: Ids,
        known: Known,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._known, self._progress = known, progress
        self._sink = Sink(backend, budget, ids, self._indexed)
        self._buffers = Pool(budget.blocks, lambda: bytearray(HEAD + budget.block))
        self._workers = ThreadPoolExecutor(budget.workers, "vault-chunks")
        self._drivers = ThreadPoolExecutor(min(_DRIVERS, budget.workers), "vault-files")
        self._claimed: set[ChunkId] = set()  # being written by us, in no index yet
        self._claiming, self._counting = threading.Lock(), threading.Lock()
        self._stats = Stats()
        self._announced = 0
        self._finished: Stats | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif self._finished is None:
            self._sink.fail(error)
            self._close(cancel=True)
            self._sink.abandon()

    def add_file(self, path: Path) -> Content:
        """A regular file's content; its holes are not read. OSError, BackendError."""
        return self.add_files([path])[0]

    def add_files(self, paths: Sequence[Path]) -> list[Content]:
        """Several, in parallel, in their order."""
        self._announce(sum(os.stat(path).st_size for path in paths))
        running = [self._drivers.submit(self._add_file, path) for path in paths]
        try:
            return [future.result() for future in running]
        except BaseException:
            for future in running:
                future.cancel()
            raise

    def add_bytes(self, data: bytes) -> Content:
        """The content of bytes in memory."""
        self._announce(len(data))
        return self._whole(memoryview(data))

    def add_stored(self, chunk: ChunkId, kind: int, payload: memoryview, plain: int) -> None:
        """A chunk in its stored form, which the caller has verified."""
        self._announce(plain)
        new = self._claim(chunk, self._known.known([chunk])[0])
        if new:
            self._sink.add(chunk, kind, payload, plain)
        self._count(Stats(0, plain, 0, 0, plain, 0, 1) if new else Stats(0, plain, 0, plain))

    def finish(self) -> Stats:
        """Wait until all is durable, and write the index. Again: the same answer. BackendError."""
        if self._finished is None:
            self._close(cancel=False)
            try:
                self._sink.finish()
            except BaseException:
                self._sink.abandon()
                raise
            written = {"stored_bytes": self._sink.stored_bytes, "packs": self._sink.packs}
            self._finished = replace(self._stats, **written)
        return self._finished

    def _close(self, *, cancel: bool) -> None:
        self._drivers.shutdown(cancel_futures=cancel)
        self._workers.shutdown()

    def _add_file(self, path: Path) -> Content:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size > _WHOLE:
                content = self._streamed(descriptor, size, path)
            else:
                data = memoryview(bytearray(size))
                read_into(descriptor, data, 0, path)
                content = self._whole(data)
        finally:
            os.close(descriptor)
        self._count(Stats(files=1))
        return content

    def _whole(self, data: memoryview) -> Content:
        cutter = Cutter()
        cuts = cutter.feed(line_digests(data)) + cutter.finish()
        return _content([(cuts, self._store(Block(cuts, data, 0)))], len(data))

    def _streamed(self, descriptor: int, size: int, path: Path) -> Content:
        stored: list[tuple[list[Cut], Future[Chunks]]] = []
        for block in blocks(descriptor, size, path, self._buffers):
            stored.append((block.cuts, self._workers.submit(self._store, block)))
        return _content([(cuts, chunks.result()) for cuts, chunks in stored], size)

    def _store(self, block: Block) -> Chunks:
        """Have what is new of a block's chunks written; all of them, with their lengths."""
        try:
            data, origin = block.data, block.origin
            chunks = [
                piece
                for cut in block.cuts
                if not cut.zero
                for piece in pieces(data[cut.start * LINE - origin : cut.end * LINE - origin])
            ]
            ids = [blake3(chunk).digest() for chunk in chunks]
            new = new_bytes = 0
            for chunk_id, plain, known in zip(ids, chunks, self._known.known(ids)):
                if self._claim(chunk_id, known):
                    new, new_bytes = new + 1, new_bytes + len(plain)
                    self._sink.add(chunk_id, *codec.encode(plain), len(plain))
            total = sum(len(chunk) for chunk in chunks)
            zero = sum(cut.end - cut.start for cut in block.cuts if cut.zero) * LINE
            self._count(Stats(0, total + zero, zero, total - new_bytes, new_bytes, 0, new))
            return [(chunk_id, len(chunk)) for chunk_id, chunk in zip(ids, chunks)]
        except BaseException as error:
            self._sink.fail(error)  # what was claimed may not be stored, so nothing may rely on it
            raise
        finally:
            if block.buffer is not None:
                self._buffers.give(block.buffer)

    def _claim(self, chunk: ChunkId, known: bool) -> bool:
        """Whether it is for the caller to store it."""
        if known:
            return False
        with self._claiming:
            before = len(self._claimed)
            self._claimed.add(chunk)
            return len(self._claimed) > before

    def _indexed(self, name: str, packs: Sequence[PackTable]) -> None:
        self._known.indexed(name, packs)
        with self._claiming:  # from here on the index answers for them
            self._claimed.difference_update(bytes(chunk) for pack in packs for chunk in pack.table["id"])

    def _announce(self, nbytes: int) -> None:
        with self._counting:
            self._announced += nbytes

    def _count(self, more: Stats) -> None:
        with self._counting:
            self._stats = added(self._stats, more)
            if self._progress and more.total_bytes:
                done = min(self._stats.total_bytes, self._announced)
                self._progress(Progress(done, self._announced, self._sink.stored_bytes))


def added(one: Stats, other: Stats) -> Stats:
    """The sum, field by field."""
    return Stats(*(a + b for a, b in zip(_numbers(one), _numbers(other), strict=True)))


def _content(blocks: Sequence[tuple[list[Cut], Chunks]], size: int) -> Content:
    chunks: Chunks = []
    for cuts, stored in blocks:
        left = iter(stored)
        for cut in cuts:
            length = min(cut.end * LINE, size) - cut.start * LINE
            if cut.zero and chunks and chunks[-1][0] == ZERO:
                chunks[-1] = ZERO, chunks[-1][1] + length
            elif cut.zero:
                chunks.append((ZERO, length))
            while not cut.zero and length:  # one chunk, or the pieces of one
                chunks.append(next(left))
                length -= chunks[-1][1]
    return Content(size, tuple(chunks))
