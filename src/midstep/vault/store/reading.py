"""Content back into files: in parallel, verified, with holes.

What is wanted is ordered by where it lies, so a pack is read in a few large pieces, and a chunk once,
whatever number of files it goes to. Thousands of chunks at a time: that bounds the memory. Where there is
much to do and the backend allows it, children do it; what is not whole is left to this process, which knows
where else it may be.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import NamedTuple

from midstep.vault.backends.base import Buffer
from midstep.vault.errors import ChunkDamaged, VaultError
from midstep.vault.store.budget import Budget
from midstep.vault.store.child import Child, Killed
from midstep.vault.store.content import ZERO, ChunkId, Content, Progress, Span, Stored
from midstep.vault.store.loading import Loader

_FILES = 256  # open at a time
_SPANS = 16384  # planned at a time
_GAP = 64 << 10  # bytes that are rather read than skipped
_VECTOR = 64  # spans written by one call
APART = 16 << 20  # bytes that are worth processes of their own

Locate = Callable[[Sequence[ChunkId]], Sequence[Stored]]


@dataclass(frozen=True, slots=True)
class _Section:
    """Some of a file's spans, one after the other from `at` on."""

    path: Path
    size: int  # of the file
    at: int
    spans: Sequence[Span]


class _Target(NamedTuple):
    """Where a span goes: to a file's position."""

    descriptor: int
    at: int
    span: Span


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A chunk, and where it and parts of it go."""

    stored: Stored
    targets: list[_Target]

    @property
    def length(self) -> int:
        """Bytes to be written."""
        return sum(target.span.length for target in self.targets)


class Reader:
    """One call of `read_many`. `locate` says where chunks lie, `loader` reads neighbours and verifies."""

    def __init__(
        self, budget: Budget, locate: Locate, loader: Loader, progress: Callable[[Progress], None] | None
    ) -> None:
        self._budget, self._locate, self._loader, self._progress = budget, locate, loader, progress
        self._done = self._total = self._read = 0
        self._lock = threading.Lock()

    def run(self, files: Iterable[tuple[Content, Path]]) -> None:
        """Write them all."""
        wanted = list(files)
        self._total = sum(content.size for content, _ in wanted)
        at_once = max(4, self._budget.workers)
        with ThreadPoolExecutor(at_once, "vault-read") as pool:
            for batch in _batches(wanted):
                self._batch(batch, pool, 2 * at_once)

    def _batch(self, sections: Sequence[_Section], pool: ThreadPoolExecutor, at_once: int) -> None:
        opened: list[int] = []
        running: set[Future[None]] = set()
        try:
            for section in sections:
                opened.append(_open(section))
            for piece in self._apart(self._pieces(sections, opened), opened):
                running.add(pool.submit(self._write, piece))
                if len(running) >= at_once:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()
        finally:
            for future in running:
                future.cancel()
            wait(running)
            for descriptor in opened:
                os.close(descriptor)

    def _apart(self, pieces: Iterator[list[_Wanted]], opened: Sequence[int]) -> Iterable[list[_Wanted]]:
        """Have children do what is worth it; what is left to do here, or was not whole there."""
        if not self._loader.forks or self._budget.workers < 2:
            return pieces
        planned = list(pieces)
        if sum(wanted.length for it in planned for wanted in it) < APART:
            return planned
        left = set(range(len(planned)))
        count = min(self._budget.workers, len(planned))
        children = [Child(partial(self._told, planned, first, count), opened) for first in range(count)]
        running = list(children)
        try:
            while running:
                ready = wait_for([child.connection for child in running])
                for child in [it for it in running if it.connection in ready]:
                    done = _heard(child)
                    if done is None:
                        running.remove(child)
                    else:
                        left.discard(done)
                        self._count(planned[done])
        finally:
            for child in children:
                child.end()
        return [planned[number] for number in sorted(left)]

    def _told(self, pieces: Sequence[list[_Wanted]], first: int, step: int) -> Iterator[int]:
        """In a child: write some of them, tell which."""
        for number in range(first, len(pieces), step):
            with suppress(VaultError):
                _write(pieces[number], self._loader.strictly([wanted.stored for wanted in pieces[number]]))
                yield number

    def _pieces(self, sections: Sequence[_Section], opened: Sequence[int]) -> Iterator[list[_Wanted]]:
        """Chunks that lie together, about as much as is read at a time."""
        targets: dict[ChunkId, list[_Target]] = {}
        zeros = 0
        for section, descriptor in zip(sections, opened):
            at = section.at
            for span in section.spans:
                if span.chunk == ZERO:
                    zeros += span.length
                else:
                    targets.setdefault(span.chunk, []).append(_Target(descriptor, at, span))
                at += span.length
        self._report(zeros, 0)
        found = sorted(self._locate(list(targets)), key=lambda stored: (stored.pack, stored.offset))
        piece: list[_Wanted] = []
        for stored in found:
            if piece and not self._together(piece[0].stored, piece[-1].stored, stored):
                yield piece
                piece = []
            piece.append(_Wanted(stored, targets[stored.chunk]))
        if piece:
            yield piece

    def _together(self, first: Stored, last: Stored, then: Stored) -> bool:
        near = then.offset - (last.offset + last.stored) <= _GAP
        return (
            then.pack == first.pack
            and near
            and then.offset + then.stored - first.offset <= self._budget.fetch
        )

    def _write(self, piece: list[_Wanted]) -> None:
        _write(piece, self._loader.load([wanted.stored for wanted in piece]))
        self._count(piece)

    def _count(self, piece: list[_Wanted]) -> None:
        last = piece[-1].stored
        self._report(
            sum(wanted.length for wanted in piece),
            last.offset + last.stored - piece[0].stored.offset,
        )

    def _report(self, done: int, read: int) -> None:
        with self._lock:
            self._done, self._read = self._done + done, self._read + read
            if self._progress:
                self._progress(Progress(self._done, self._total, self._read))


def _heard(child: Child[int]) -> int | None:
    """What it has done; None: it ends, be it that somebody has killed it: then the rest is not done."""
    try:
        return child.hear()
    except Killed:
        return None


def _batches(files: Iterable[tuple[Content, Path]]) -> Iterator[list[_Section]]:
    batch: list[_Section] = []
    planned = 0
    for content, path in files:
        at = 0
        for begin in range(0, max(1, len(content.spans)), _SPANS):
            section = _Section(path, content.size, at, content.spans[begin : begin + _SPANS])
            at += sum(span.length for span in section.spans)
            batch.append(section)
            planned += len(section.spans)
            if planned >= _SPANS or len(batch) == _FILES:
                yield batch
                batch, planned = [], 0
    yield batch


def _open(section: _Section) -> int:
    fresh = os.O_CREAT | os.O_TRUNC if section.at == 0 else 0
    descriptor = os.open(section.path, os.O_WRONLY | os.O_CLOEXEC | fresh, 0o600)
    if fresh:
        os.ftruncate(descriptor, section.size)
    return descriptor


def _write(piece: list[_Wanted], loaded: Sequence[Buffer]) -> None:
    run: list[Buffer] = []
    descriptor = begin = end = 0
    for wanted, plain in zip(piece, loaded):
        for target, at, span in wanted.targets:
            if run and (target != descriptor or at != end or len(run) == _VECTOR):
                _write_all(descriptor, run, begin)
                run = []
            if not run:
                descriptor, begin = target, at
            run.append(_part(plain, span))
            end = at + span.length
    _write_all(descriptor, run, begin)


def _part(plain: Buffer, span: Span) -> Buffer:
    """What a span has of a chunk. ChunkDamaged: the chunk is not as long as that."""
    begin = span.offset or 0
    if begin + span.length > len(plain) or (span.offset is None and span.length < len(plain)):
        words = f"bytes {begin} to {begin + span.length} of chunk {span.chunk.hex()} are needed"
        raise ChunkDamaged(f"{words}, which has {len(plain)}: what refers to it is wrong")
    return plain if span.offset is None else memoryview(plain)[begin : begin + span.length]


def _write_all(descriptor: int, run: Sequence[Buffer], at: int) -> None:
    left = [memoryview(part) for part in run]
    while left:
        count = os.pwritev(descriptor, left, at)
        at += count
        while left and count >= len(left[0]):
            count -= len(left[0])
            del left[0]
        if count:
            left[0] = left[0][count:]
