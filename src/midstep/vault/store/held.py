"""New chunks that are kept back: they may be much like what lay there before (changes.py).

It is looked for when all files have been read, for the same change may be in several. Long runs of new chunks
are large tensors that a step has changed: these are stored at once, and so is what would be too much.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from blake3 import blake3

from midstep.vault.backends.base import Buffer
from midstep.vault.store.chunker import LINE
from midstep.vault.store.content import ChunkId, Content
from midstep.vault.store.files import read_into

_LONG = 8 << 20  # bytes of a run


@dataclass(frozen=True, slots=True)
class New:
    """A chunk to be stored, and where it is in its file."""

    chunk: ChunkId
    at: int
    length: int

    def check(self, plain: Buffer, path: Path) -> None:
        """OSError: these bytes are others than those that were looked at first."""
        if blake3(plain).digest() != self.chunk:
            raise OSError(errno.EIO, f"{path} was changed while it was read (at {self.at} bytes)")


@dataclass(slots=True)
class Held:
    """Of one call of a writer: at most so many bytes. Drivers share one."""

    most: int
    chunks: dict[ChunkId, tuple[Path, New]] = field(default_factory=dict[ChunkId, tuple[Path, New]])
    before: dict[ChunkId, None] = field(default_factory=dict[ChunkId, None])  # of these files, in order
    seen: set[ChunkId] = field(default_factory=set[ChunkId])  # in them now
    _nbytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, path: Path, run: Sequence[New]) -> bool:
        """Keep them back, if there is room."""
        with self._lock:
            fresh = [it for it in run if it.chunk not in self.chunks]
            nbytes = self._nbytes + sum(it.length for it in fresh)
            if nbytes <= self.most:
                self._nbytes = nbytes
                self.chunks.update((it.chunk, (path, it)) for it in fresh)
            return nbytes <= self.most

    def kept(self, wanted: Callable[[ChunkId], bool]) -> list[tuple[Path, New]]:
        """What was kept back, by file and place."""
        found = [it for chunk, it in self.chunks.items() if wanted(chunk)]
        return sorted(found, key=lambda it: (it[0], it[1].at))

    def gone(self) -> list[ChunkId]:
        """What was there before and is not any more."""
        return [chunk for chunk in self.before if chunk not in self.seen]

    def bounded(self, chunks: Iterable[tuple[ChunkId, Buffer]]) -> Iterator[tuple[ChunkId, Buffer]]:
        """Of the chunks that are gone so many that memory is bounded, and of whole lines."""
        left = self.most
        for chunk, plain in chunks:
            left -= len(plain)
            if left < 0:
                return
            if len(plain) % LINE == 0:
                yield chunk, plain


class Runs:
    """One file's new chunks, as they are found. ``before``: what it consisted of."""

    def __init__(self, held: Held, path: Path, before: Content) -> None:
        self._held, self._path = held, path
        self._old = set(before.ids())
        self._run: list[New] = []
        self._length = 0
        held.before.update(dict.fromkeys(before.ids()))

    def add(self, chunks: Iterable[tuple[New, bool]]) -> list[New]:
        """The next chunks, and whether each is new; returns those that are to be stored now."""
        now: list[New] = []
        for it, is_new in chunks:
            self._held.seen.add(it.chunk)
            if not is_new:
                now += self.end()
            elif it.chunk in self._old or it.length % LINE:
                now.append(it)  # it was here and is lost, or is no lines: then it is stored as it is
            else:
                self._length += it.length
                self._run.append(it)
                if self._length > _LONG:
                    now += self._run
                    self._run = []
        return now

    def end(self) -> list[New]:
        """A run ends here; returns what of it is to be stored now."""
        run, self._run, self._length = self._run, [], 0
        return [] if self._held.take(self._path, run) else run


def contents(kept: Iterable[tuple[Path, New]]) -> Iterator[tuple[ChunkId, Buffer]]:
    """What these chunks hold, read again. OSError."""
    for path, group in groupby(kept, itemgetter(0)):
        with path.open("rb") as file:
            for _, it in group:
                plain = memoryview(bytearray(it.length))
                read_into(file.fileno(), plain, it.at, path)
                it.check(plain, path)
                yield it.chunk, plain


def near(new: Sequence[New], most: int) -> Iterator[list[New]]:
    """Groups that one reading of so many bytes takes."""
    group: list[New] = []
    for it in new:
        if group and it.at + it.length - group[0].at > most:
            yield group
            group = []
        group.append(it)
    if group:
        yield group
