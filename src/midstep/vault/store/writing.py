"""A writer: files in, chunks out, on all processors and in bounded memory.

Of each file a driver thread learns what chunks it has (scan.py) and looks them up; workers read those that
are new, compress and pack them. Of a file that has been here before, some wait for the end (held.py).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from types import TracebackType
from typing import Protocol

from midstep.env.ids import Ids
from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.store import changes, codec
from midstep.vault.store.budget import Budget, Pool
from midstep.vault.store.content import ZERO, ChunkId, Content, Progress, Span, Stats
from midstep.vault.store.files import read_into
from midstep.vault.store.held import Held, New, Runs, contents, near
from midstep.vault.store.index import PackTable
from midstep.vault.store.scan import Chunks, scan, scan_apart, whole
from midstep.vault.store.sink import Sink
from midstep.vault.store.tally import added, stats_of, stored_after_all

_WHOLE = 256 << 10  # smaller files are read and hashed by their driver, in one go
APART = 16 << 20  # larger ones have a process of their own
_DRIVERS = 8
_AHEAD = 64  # readings of new chunks of a file that workers may still have to do


Recall = Callable[[Sequence[ChunkId]], Iterable[tuple[ChunkId, Buffer]]]


def _nothing(ids: Sequence[ChunkId]) -> Iterable[tuple[ChunkId, Buffer]]:
    return ()


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
        recall: Recall = _nothing,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._known, self._recall, self._progress = known, recall, progress
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

    def add_files(self, paths: Sequence[Path], before: Sequence[Content | None] = ()) -> list[Content]:
        """Several, in parallel, in their order. ``before``: what each consisted of some time ago."""
        self._announce(sum(os.stat(path).st_size for path in paths))
        held = Held(self._budget.held)
        old = before or [None] * len(paths)
        running = [self._drivers.submit(self._add_file, *it, held) for it in zip(paths, old, strict=True)]
        try:
            found = [future.result() for future in running]
        except BaseException:
            for future in running:
                future.cancel()
            raise
        with self._reliably():
            spans = self._look_again(held)
        return [_content(chunks, size, spans) for chunks, size in found]

    def add_bytes(self, data: bytes) -> Content:
        """The content of bytes in memory."""
        self._announce(len(data))
        return _content(self._whole(memoryview(data)), len(data), {})

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

    def _add_file(self, path: Path, before: Content | None, held: Held) -> tuple[Chunks, int]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size > _WHOLE:
                runs = Runs(held, path, before) if before else None
                chunks = self._streamed(descriptor, size, path, runs)
            else:
                data = memoryview(bytearray(size))
                read_into(descriptor, data, 0, path)
                chunks = self._whole(data)
        finally:
            os.close(descriptor)
        self._count(Stats(files=1))
        return chunks, size

    def _whole(self, data: memoryview) -> Chunks:
        chunks, plain = whole(data)
        ids = [chunk for chunk, _ in chunks if chunk != ZERO]
        new = new_bytes = 0
        with self._reliably():
            for chunk, part, known in zip(ids, plain, self._known.known(ids)):
                if not known and self._claim(chunk):
                    new, new_bytes = new + 1, new_bytes + len(part)
                    self._sink.add(chunk, *codec.encode(part), len(part))
        self._count(stats_of(chunks, new, new_bytes))
        return chunks

    def _streamed(self, descriptor: int, size: int, path: Path, runs: Runs | None) -> Chunks:
        look = scan_apart if size >= APART and self._budget.workers > 1 else scan
        chunks, at = Chunks(), 0
        running: deque[Future[None]] = deque()
        try:
            for some in look(descriptor, size, path):
                with self._reliably():
                    new = self._new(some, at, runs)
                    running.extend(self._storing(descriptor, path, new))
                self._count(stats_of(some, len(new), sum(it.length for it in new)))
                chunks += some
                at += sum(length for _, length in some)
                while len(running) > _AHEAD:
                    running.popleft().result()
            if runs:
                new = [it for it in runs.end() if self._claim(it.chunk)]
                running.extend(self._storing(descriptor, path, new))
                self._count(stored_after_all([it.length for it in new]))
            for future in running:
                future.result()
        finally:
            wait(running)  # then nobody reads any more
        return chunks

    def _storing(self, descriptor: int, path: Path, new: Sequence[New]) -> Iterator[Future[None]]:
        for some in near(new, self._budget.block):
            yield self._workers.submit(self._store, descriptor, path, some)

    def _new(self, chunks: Chunks, at: int, runs: Runs | None) -> list[New]:
        """Those that the caller has to store."""
        ids = [chunk for chunk, _ in chunks if chunk != ZERO]
        there = dict(zip(ids, self._known.known(ids)))
        if runs is None and all(there.values()):
            return []
        found: list[tuple[New, bool]] = []
        for chunk, length in chunks:
            found.append((New(chunk, at, length), not there.get(chunk, True)))
            at += length
        new = runs.add(found) if runs else [it for it, is_new in found if is_new]
        return [it for it in sorted(new, key=attrgetter("at")) if self._claim(it.chunk)]

    def _look_again(self, held: Held) -> dict[ChunkId, tuple[Span, ...]]:
        """At the chunks that were kept back: what those consist of that are not stored themselves."""
        there = dict(zip(held.chunks, self._known.known(list(held.chunks))))
        with self._claiming:
            kept = held.kept(lambda chunk: not there[chunk] and chunk not in self._claimed)
        if not kept:
            return {}
        found = changes.find(held.bounded(self._recall(held.gone())), contents(kept))
        gathered = [chunk for chunk, _ in found.gathered]
        for (chunk, plain), known in zip(found.gathered, self._known.known(gathered)):
            if not known and self._claim(chunk):
                self._sink.add(chunk, *codec.encode(memoryview(plain)), len(plain))
                self._count(stored_after_all([len(plain)]))
        for path, group in groupby(kept, itemgetter(0)):
            whole = [it for _, it in group if it.chunk not in found.spans and self._claim(it.chunk)]
            with path.open("rb") as file:
                wait(running := list(self._storing(file.fileno(), path, whole)))
            for future in running:
                future.result()
            self._count(stored_after_all([it.length for it in whole]))
        return found.spans

    def _store(self, descriptor: int, path: Path, near: Sequence[New]) -> None:
        """Write what is new of a file."""
        begin, end = near[0].at, near[-1].at + near[-1].length
        buffer = self._buffers.take()
        try:
            with self._reliably():
                data = memoryview(buffer)[: end - begin]
                read_into(descriptor, data, begin, path)
                for it in near:
                    plain = data[it.at - begin : it.at - begin + it.length]
                    it.check(plain, path)
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


def _content(found: Chunks, size: int, parts: Mapping[ChunkId, tuple[Span, ...]]) -> Content:
    """Zeros that touch become one. ``parts``: chunks that were not stored, and what they consist of."""
    spans: list[Span] = []
    for chunk, length in found:
        if chunk == ZERO and spans and spans[-1].chunk == ZERO:
            length += spans.pop().length
        spans += parts.get(chunk) or (Span(chunk, length),)
    return Content(size, tuple(spans))
