"""Chunks out of packs, verified, from wherever they are whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from blake3 import blake3

from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.errors import ChunkDamaged, ChunkMissing, ObjectMissing, ObjectTorn
from midstep.vault.store import codec
from midstep.vault.store.catalog import Catalog
from midstep.vault.store.content import Stored

_log = logging.getLogger(__name__)


class Loader:
    """Threads may share one."""

    def __init__(self, backend: Backend, catalog: Catalog) -> None:
        self._backend, self._catalog = backend, catalog
        self._bad: set[str] = set()  # packs, said once

    @property
    def forks(self) -> bool:
        """Whether a forked child may use `strictly`."""
        return getattr(self._backend, "forks", False)

    def strictly(self, near: Sequence[Stored]) -> list[Buffer]:
        """As `load`, but from there or not at all, without locks. ChunkDamaged, ObjectMissing, ObjectTorn."""
        return [plain_of(stored, form) for stored, form in zip(near, self.forms(near))]

    def load(self, near: Sequence[Stored]) -> list[Buffer]:
        """Plain bytes of chunks that lie together in a pack, verified. One that is not whole there is read
        where else it is. ChunkDamaged, ChunkMissing."""
        return [plain for plain, _ in self._whole(near)]

    def whole_forms(self, near: Sequence[Stored]) -> list[memoryview]:
        """The same in their stored forms."""
        return [form for _, form in self._whole(near)]

    def _whole(self, near: Sequence[Stored]) -> list[tuple[Buffer, memoryview]]:
        try:
            forms = self.forms(near)
        except (ObjectMissing, ObjectTorn):
            # a collector has moved them since the indexes were read
            self._catalog.refresh()
            return [self._one(stored) for stored in self._catalog.locate([one.chunk for one in near])]
        return [self._one(stored, form) for stored, form in zip(near, forms)]

    def _one(self, stored: Stored, form: memoryview | None = None) -> tuple[Buffer, memoryview]:
        """A chunk, from any pack that has it whole."""
        try:
            form = self.forms([stored])[0] if form is None else form
            return plain_of(stored, form), form
        except (ChunkDamaged, ObjectMissing, ObjectTorn) as error:
            if stored.pack not in self._bad:
                self._bad.add(stored.pack)
                self._catalog.refresh()
                _log.warning("read from other packs, if they have it (see `vault check --mend`): %s", error)
            found = self._elsewhere(stored)
            if found is not None:
                return found
            if isinstance(error, ChunkDamaged):
                raise
            where = f"no pack of {self._backend.describe()} any more"
            raise ChunkMissing(f"{_named(stored)} is in {where}: {error}") from None

    def _elsewhere(self, stored: Stored) -> tuple[Buffer, memoryview] | None:
        for copy in self._catalog.copies(stored.chunk):
            if copy.pack != stored.pack:
                with suppress(ChunkDamaged, ObjectMissing, ObjectTorn):
                    form = self.forms([copy])[0]
                    return plain_of(copy, form), form
        return None

    def forms(self, near: Sequence[Stored]) -> list[memoryview]:
        """Stored forms of chunks that lie together. ObjectMissing, ObjectTorn."""
        begin, last = near[0].offset, near[-1]
        data = memoryview(self._backend.get(last.pack, begin, last.offset + last.stored - begin))
        return [data[stored.offset - begin : stored.offset - begin + stored.stored] for stored in near]


def plain_of(stored: Stored, form: memoryview) -> Buffer:
    """A chunk's content out of its stored form, verified. ChunkDamaged."""
    try:
        plain = codec.decode(form, stored.plain)
    except codec.CodecError as error:
        raise ChunkDamaged(f"{_named(stored)} cannot be decoded: {error}") from None
    if blake3(plain).digest() != stored.chunk:
        raise ChunkDamaged(f"{_named(stored)} is not what was written")
    return plain


def _named(stored: Stored) -> str:
    return f"chunk {stored.chunk.hex()} ({stored.stored} bytes from {stored.offset} of {stored.pack})"
