"""A content-addressed repository of chunks over a backend.

    packs/xx/HASH   many chunks each, described at their ends (packs.py)
    index/HASH      which chunk lies where (index.py); can be made again from the packs

Objects are only added here, under names that are hashes of what they hold; so any number of writers, in any
processes, work on one repository at once (the same chunk may then be stored twice, which is harmless). Only
`forget` removes, and it is for a collector that knows what is referred to.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from blake3 import blake3

from midstep.env.ids import Ids, real_ids
from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.errors import ChunkDamaged, Damaged, ObjectMissing, ObjectTorn, PackDamaged
from midstep.vault.store import packs
from midstep.vault.store.budget import MEMORY_BYTES, Budget
from midstep.vault.store.catalog import Catalog
from midstep.vault.store.content import ZERO, ChunkId, Content, PackInfo, Progress, Span, Stats, Stored
from midstep.vault.store.index import PackTable
from midstep.vault.store.loading import Loader, plain_of
from midstep.vault.store.reading import Reader
from midstep.vault.store.writing import Writer

__all__ = [
    "MEMORY_BYTES",
    "ZERO",
    "ChunkId",
    "Content",
    "PackInfo",
    "Progress",
    "Repository",
    "Span",
    "Stats",
    "Stored",
    "Writer",
]
_PIECE = struct.Struct("<32sI")  # an exported chunk: id, plain length; then the stored form


class Repository:
    """Threads may share one. `workers`: threads that hash and compress (default: the processors we may use);
    `memory_bytes`: what buffers may take, whatever is stored (the index takes 56 bytes a chunk besides).
    `ids`: where unique bytes come from.

    Opening reads the indexes. BackendError; FormatUnknown; ValueError for less than 32 MiB of memory.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        workers: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
        ids: Ids | None = None,
    ) -> None:
        self._backend, self._ids = backend, ids or real_ids()
        self._budget = Budget.of(workers, memory_bytes)
        self._catalog = Catalog(backend)
        self._catalog.refresh()
        self._loader = Loader(backend, self._catalog)

    @property
    def damage(self) -> list[Damaged]:
        """What could not be read when the indexes were (IndexDamaged, PackDamaged). What such an index said
        is taken from the packs themselves."""
        return self._catalog.damage

    def writer(self, progress: Callable[[Progress], None] | None = None) -> Writer:
        """A context that adds chunks; it knows what others have indexed until now. `progress` is called from
        any thread, one at a time, every few MiB."""
        self.refresh()
        return Writer(self._backend, self._budget, self._ids, self._catalog, self._whole_of, progress)

    def missing(self, ids: Iterable[ChunkId]) -> set[ChunkId]:
        """Those that are not here, as far as the indexes read so far say."""
        wanted = list({chunk for chunk in ids if chunk != ZERO})
        return {chunk for chunk, known in zip(wanted, self._catalog.known(wanted)) if not known}

    def read(self, content: Content, into: Path) -> None:
        """`read_many` of one file."""
        self.read_many([(content, into)])

    def read_many(
        self, files: Iterable[tuple[Content, Path]], progress: Callable[[Progress], None] | None = None
    ) -> None:
        """Write files, each new or replaced, in parallel; zeros become holes; every chunk is verified.

        Modes and times are the caller's, and so is bringing them to disk. ChunkMissing, ChunkDamaged (the
        files are then incomplete), OSError.
        """
        Reader(self._budget, self._catalog.locate, self._loader, progress).run(files)

    def get(self, chunk: ChunkId) -> bytes:
        """A chunk's plain bytes, verified. ChunkMissing; ChunkDamaged names chunk, pack and offset."""
        return bytes(self._loader.load(self._catalog.locate([chunk]))[0])

    def export(self, ids: Iterable[ChunkId]) -> Iterator[bytes]:
        """Chunks in their stored form, one a piece, for another repository's `import_`; verified, from
        whatever pack has them whole. ChunkMissing, ChunkDamaged."""
        for batch in _near(
            sorted(self._catalog.locate(list(dict.fromkeys(ids))), key=_place), self._budget.fetch
        ):
            for stored, form in zip(batch, self._loader.whole_forms(batch)):
                yield _PIECE.pack(stored.chunk, stored.plain) + form

    def import_(self, pieces: Iterable[bytes]) -> Stats:
        """Take what another repository's `export` gave; durable on return. ChunkDamaged: that piece is not
        what it says; nothing refers to what was stored before it."""
        with self.writer() as writer:
            for piece in pieces:
                if len(piece) <= _PIECE.size:
                    raise ChunkDamaged(f"a piece of {len(piece)} bytes is not an exported chunk")
                chunk, plain = _PIECE.unpack_from(piece)
                form = memoryview(piece)[_PIECE.size :]
                plain_of(Stored(chunk, "what was sent", 0, len(form), plain), form)
                writer.add_stored(chunk, form[0], form[1:], plain)
            return writer.finish()

    def refresh(self) -> None:
        """Read indexes that others have written since, and forget those that were removed."""
        self._catalog.refresh()

    # for the collector and the checker

    def find(self, chunk: ChunkId) -> Stored | None:
        """Where a chunk lies, as far as the indexes read so far say."""
        return self._catalog.find([chunk])[0]

    def packs(self) -> Iterator[PackInfo]:
        """Every pack that an index names, by name."""
        for pack in self._catalog.tables():
            yield PackInfo(pack.name, pack.size, tuple(packs.stored_in(pack.name, pack.table)))

    def orphans(self) -> list[str]:
        """Names of packs that no index mentions: a writer at work, or one that was killed."""
        return self._catalog.orphans()

    def verify(self, pack: str) -> list[Damaged]:
        """Read a pack and say all that is wrong with it (nothing: an empty list): any flipped bit is found.
        BackendError, but not ObjectMissing: that is PackDamaged."""
        try:
            whole = self._backend.get(pack)
        except (ObjectMissing, ObjectTorn) as error:
            return [PackDamaged(f"pack {pack} is not there: {error}")]
        found: list[Damaged] = []
        try:
            table = packs.parse(pack, whole)
        except PackDamaged as error:
            found.append(error)
            table = self._catalog.table(pack)
        for stored in packs.stored_in(pack, table):
            try:
                plain_of(stored, memoryview(whole)[stored.offset : stored.offset + stored.stored])
            except ChunkDamaged as error:
                found.append(error)
        if not found and packs.pack_name(blake3(whole).digest()) != pack:
            found.append(PackDamaged(f"pack {pack} is not what was written, though all its chunks are"))
        return found

    def heal(self) -> list[str]:
        """Write an index for packs that none names, then remove indexes that cannot be read; what was done,
        for people. Such packs are read: what is damaged in them is not indexed, for a mending that was killed
        before it had removed the pack may have taken it out on purpose."""
        return self._catalog.heal(self._sound)

    def repack(
        self, names: Collection[str], keep: Callable[[Stored], bool], doomed: Collection[str] = ()
    ) -> Stats:
        """Copy what is to be kept of these packs into new ones (durable), then `forget` them. ``doomed``:
        packs that go next; so a chunk that is in one of them, too, must be copied all the same. ChunkDamaged:
        what is to be kept is not whole; nothing is forgotten then."""
        old = set(names)
        stats = Stats()
        rescued = [s for pack in self.packs() if pack.name in old for s in pack.chunks if keep(s)]
        if rescued:
            others = _Without(self._catalog, old | set(doomed))
            with Writer(self._backend, self._budget, self._ids, others) as writer:
                for batch in _near(sorted(rescued, key=_place), self._budget.fetch):
                    for stored, form in zip(batch, self._loader.forms(batch)):
                        plain_of(stored, memoryview(form))
                        writer.add_stored(stored.chunk, form[0], memoryview(form)[1:], stored.plain)
                stats = writer.finish()
        self.forget(old)
        return stats

    def forget(self, names: Collection[str]) -> None:
        """Remove packs with all that is in them: first from the indexes, then the objects. A kill in between
        leaves orphans."""
        self._catalog.forget(set(names))

    def whole(self, pack: str, chunks: Sequence[Stored]) -> list[bool]:
        """Of chunks that lie in a pack: whether each is there as it was written."""
        try:
            data = memoryview(self._backend.get(pack))
        except (ObjectMissing, ObjectTorn):
            data = memoryview(b"")
        return [_is_whole(stored, data) for stored in chunks]

    def _whole_of(self, ids: Iterable[ChunkId]) -> Iterator[tuple[ChunkId, Buffer]]:
        """Chunks with their content, as far as they are here and whole."""
        there = [stored for stored in self._catalog.find(list(ids)) if stored is not None]
        for batch in _near(sorted(there, key=_place), self._budget.fetch):
            with contextlib.suppress(Damaged):
                yield from zip([stored.chunk for stored in batch], self._loader.load(batch))

    def _sound(self, pack: PackTable) -> PackTable:
        keep = self.whole(pack.name, packs.stored_in(pack.name, pack.table))
        return replace(pack, table=pack.table[np.array(keep, np.bool_)])


class _Without:
    """A catalog as a writer sees it that copies chunks out of packs which are to go."""

    def __init__(self, catalog: Catalog, doomed: set[str]) -> None:
        self._catalog, self._doomed = catalog, doomed

    def known(self, ids: Sequence[ChunkId]) -> list[bool]:
        return [self._catalog.elsewhere(chunk, self._doomed) for chunk in ids]

    def indexed(self, name: str, tables: Sequence[PackTable]) -> None:
        self._catalog.indexed(name, tables)


def _is_whole(stored: Stored, pack: memoryview) -> bool:
    try:
        plain_of(stored, pack[stored.offset : stored.offset + stored.stored])
    except ChunkDamaged:
        return False
    return True


def _place(stored: Stored) -> tuple[str, int]:
    return stored.pack, stored.offset


def _near(ordered: Iterable[Stored], most: int) -> Iterator[list[Stored]]:
    """Groups that one read of about `most` bytes takes."""
    group: list[Stored] = []
    for stored in ordered:
        if group and (stored.pack != group[0].pack or stored.offset + stored.stored - group[0].offset > most):
            yield group
            group = []
        group.append(stored)
    if group:
        yield group
