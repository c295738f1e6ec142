"""A writer: files in, chunks out, on all processors and in bounded memory.

Of each file a driver thread learns what chunks it has (scan.py) and looks them up; workers read those that
are new, compress and pack them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Protocol

from blake3 import blake3

from midstep.env.ids import Ids
from midstep.vault.backends.base import Backend
from midstep.vault.store import codec
from midstep.vault.store.budget import Budget, Pool
from midstep.vault.store.content import ZERO, ChunkId, Content, Progress, Stats
from midstep.vault.store.files import read_into
from midstep.vault.store.index import PackTable
from midstep.vault.store.scan import Chunks, scan, scan_apart, whole
from midstep.vault.store.sink import Sink

_WHOLE = 256 << 10  # smaller files are read and hashed by their driver, in one go
APART = 16 << 20  # larger ones have a process of their own
_DRIVERS = 8
_AHEAD = 64  # readings of new chunks of a file that workers may still have to do
_numbers = attrgetter(*(f.name for f in fields(Stats)))


@dataclass(frozen=True, slots=True)
class _New:
    """A chunk to be stored, and where it is in its file."""

    chunk: ChunkId
    at: int
    length: int


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
        self._budget = budget
        self._buffers = Pool(budget.workers, lambda: bytearray(budget.block))
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
        new = not self._known.known([chunk])[0] and self._claim(chunk)
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
        chunks, plain = whole(data)
        ids = [chunk for chunk, _ in chunks if chunk != ZERO]
        new = new_bytes = 0
        with self._reliably():
            for chunk, part, known in zip(ids, plain, self._known.known(ids)):
                if not known and self._claim(chunk):
                    new, new_bytes = new + 1, new_bytes + len(part)
                    self._sink.add(chunk, *codec.encode(part), len(part))
        self._count(_stats(chunks, new, new_bytes))
        return _content(chunks, len(data))

    def _streamed(self, descriptor: int, size: int, path: Path) -> Content:
        look = scan_apart if size >= APART and self._budget.workers > 1 else scan
        chunks, at = Chunks(), 0
        running: deque[Future[None]] = deque()
        try:
            for some in look(descriptor, size, path):
                with self._reliably():
                    new = self._new(some, at)
                    for near in _near(new, self._budget.block):
                        running.append(self._workers.submit(self._store, descriptor, path, near))
                self._count(_stats(some, len(new), sum(it.length for it in new)))
                chunks += some
                at += sum(length for _, length in some)
                while len(running) > _AHEAD:
                    running.popleft().result()
            for future in running:
                future.result()
        finally:
            wait(running)  # then nobody reads any more
        return _content(chunks, size)

    def _new(self, chunks: Chunks, at: int) -> list[_New]:
        """Those that the caller has to store."""
        ids = [chunk for chunk, _ in chunks if chunk != ZERO]
        there = dict(zip(ids, self._known.known(ids)))
        found: list[_New] = []
        if all(there.values()):
            return found
        for chunk, length in chunks:
            if not there.get(chunk, True) and self._claim(chunk):
                found.append(_New(chunk, at, length))
            at += length
        return found

    def _store(self, descriptor: int, path: Path, near: Sequence[_New]) -> None:
        """Write what is new of a file."""
        begin, end = near[0].at, near[-1].at + near[-1].length
        buffer = self._buffers.take()
        try:
            with self._reliably():
                data = memoryview(buffer)[: end - begin]
                read_into(descriptor, data, begin, path)
                for it in near:
                    plain = data[it.at - begin : it.at - begin + it.length]
                    if blake3(plain).digest() != it.chunk:
                        raise OSError(errno.EIO, f"{path} was changed while it was read (at {it.at} bytes)")
                    self._sink.add(it.chunk, *codec.encode(plain), it.length)
        finally:
            self._buffers.give(buffer)

    @contextmanager
    def _reliably(self) -> Generator[None]:
        """With an error, what was claimed may not be stored: then nothing may rely on it."""
        try:
            yield
        except BaseException as error:
            self._sink.fail(error)
            raise

    def _claim(self, chunk: ChunkId) -> bool:
        """Whether it is for the caller to store it; of one that is in no index."""
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


def _near(new: Sequence[_New], most: int) -> Iterator[list[_New]]:
    """Groups that one reading of so many bytes takes."""
    group: list[_New] = []
    for it in new:
        if group and it.at + it.length - group[0].at > most:
            yield group
            group = []
        group.append(it)
    if group:
        yield group


def _stats(chunks: Chunks, new: int, new_bytes: int) -> Stats:
    total = sum(length for _, length in chunks)
    zero = sum(length for chunk, length in chunks if chunk == ZERO)
    return Stats(0, total, zero, total - zero - new_bytes, new_bytes, 0, new)


def _content(found: Chunks, size: int) -> Content:
    """Zeros that touch become one."""
    chunks = Chunks()
    for chunk, length in found:
        if chunk == ZERO and chunks and chunks[-1][0] == ZERO:
            length += chunks.pop()[1]
        chunks.append((chunk, length))
    return Content(size, tuple(chunks))
