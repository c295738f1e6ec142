"""The index objects of a store: read, kept up to date, and made again from the packs where they are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from midstep.vault.backends.base import Backend
from midstep.vault.errors import ChunkMissing, Damaged, IndexDamaged, ObjectMissing, ObjectTorn, PackDamaged
from midstep.vault.store import index, packs
from midstep.vault.store.content import ChunkId, Stored
from midstep.vault.store.index import Index, PackTable
from midstep.vault.store.packs import ENTRY, Table


class Catalog:
    """What is where. Threads may share one."""

    def __init__(self, backend: Backend) -> None:
        self.damage: list[Damaged] = []
        self._backend = backend
        self._index = Index()
        self._strays = Index()  # packs that no index names: to read from, for want of better, not to rely on
        self._read: dict[str, set[str]] = {}  # index object -> the packs that it lists
        self._own: set[str] = set()  # written here: a listing that lags must not make us forget them
        self._torn: set[str] = set()
        self._changing = threading.RLock()

    def refresh(self) -> None:
        """Read what came since; start anew when something was removed."""
        with self._changing:
            listed = {info.name for info in self._backend.list(index.FOLDER)}
            if gone := {name for name in set(self._read) - listed if not self._still_there(name)}:
                self._drop(gone)
            torn = len(self._torn)
            fresh = [
                pack for name in sorted(listed - set(self._read) - self._torn) for pack in self._open(name)
            ]
            self._index.add(fresh)
            if len(self._torn) > torn:
                self._index.add(self._from_packs())

    def known(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Whether each is in an index read so far."""
        return self._index.known(ids)

    def indexed(self, name: str, tables: Sequence[PackTable]) -> None:
        """An index object was written here."""
        with self._changing:
            self._index.add(tables)
            self._read[name] = {table.name for table in tables}
            self._own.add(name)

    def find(self, ids: Sequence[ChunkId]) -> list[Stored | None]:
        """Where each lies, as far as is known."""
        return self._find(self._index, ids)

    def _find(self, known: Index, ids: Sequence[ChunkId]) -> list[Stored | None]:
        names, places = known.pack_names, known.places(ids)
        numbers: Iterator[tuple[ChunkId, int, int, int, int]] = zip(
            ids, places.pack.tolist(), places.offset.tolist(), places.stored.tolist(), places.plain.tolist()
        )
        return [
            Stored(chunk, names[pack], offset, stored, plain) if pack >= 0 else None
            for chunk, pack, offset, stored, plain in numbers
        ]

    def locate(self, ids: Sequence[ChunkId]) -> list[Stored]:
        """Where each lies, whatever has to be read for that. ChunkMissing."""
        found = self.find(ids)
        if None in found:
            self.refresh()
            found = self.find(ids)
        if None in found:
            with self._changing:  # an index may have been lost; packs know what they hold
                self._strays = Index()
                self._strays.add(self._from_packs())
            strays = self._find(self._strays, ids)
            found = [stored or stray for stored, stray in zip(found, strays)]
        there = [stored for stored in found if stored is not None]
        if len(there) < len(found):
            lost = [chunk.hex() for chunk, stored in zip(ids, found) if stored is None]
            raise ChunkMissing(
                f"{len(lost)} of {len(ids)} chunks are in no pack of {self._backend.describe()}, "
                f"the first is {lost[0]}"
            )
        return there

    def copies(self, chunk: ChunkId) -> list[Stored]:
        """Every place where a pack that an index names has it."""
        return self._index.copies(chunk)

    def elsewhere(self, chunk: ChunkId, doomed: set[str]) -> bool:
        """Whether a pack that is not doomed has it."""
        return any(copy.pack not in doomed for copy in self._index.copies(chunk))

    def tables(self) -> Iterator[PackTable]:
        """Every pack that an index names."""
        return self._index.tables()

    def table(self, name: str) -> Table:
        """What the indexes say of a pack; nothing, if they do not know it."""
        return next((pack.table for pack in self._index.tables() if pack.name == name), np.empty(0, ENTRY))

    def orphans(self) -> list[str]:
        """Packs that no index names, and that were not taken in for one that cannot be read either."""
        return [name for name in self._unlisted() if name not in self._index.packs]

    def _unlisted(self) -> list[str]:
        self.refresh()
        with self._changing:
            listed = set[str]().union(*self._read.values())
        return [info.name for info in self._backend.list(packs.FOLDER) if info.name not in listed]

    def heal(self, whole: Callable[[PackTable], PackTable]) -> list[str]:
        """See Repository.heal. ``whole``: what of a pack can be read."""
        done: list[str] = []
        with self._changing:
            self.damage.clear()
            found = [pack for pack in map(whole, self._tables_of(self._unlisted())) if len(pack.table)]
            if found:
                self._put(found)
                done.append(f"indexed {len(found)} packs again that no index named")
            for name in sorted(self._torn - set(self._read)):  # one made again may have the very name
                self._backend.delete(name)
                done.append(f"removed {name}, which could not be read")
            self._torn.clear()
            self._keep_listed(found)
        return done

    def forget(self, names: set[str]) -> None:
        """See Repository.forget."""
        self.refresh()
        with self._changing:
            old = {name for name, tables in self._read.items() if tables & names}
            touched = set[str]().union(*(self._read[name] for name in old)) - names
            if touched:
                self._put([pack for pack in self._index.tables() if pack.name in touched])
            for name in sorted(old):
                self._backend.delete(name)
            self._drop(old)
        for name in sorted(names):
            self._backend.delete(name)

    def _put(self, tables: Sequence[PackTable]) -> None:
        name, data = index.encode(tables)
        self._backend.put(name, data)
        self._read[name] = {table.name for table in tables}
        self._own.add(name)

    def _still_there(self, name: str) -> bool:
        """Of an index that a listing lacks: one that was written here may only not be listed yet."""
        if name not in self._own:
            return False
        try:
            return self._backend.size(name) > 0
        except ObjectMissing:
            return False  # a collector has replaced it

    def _drop(self, gone: set[str]) -> None:
        for name in gone:
            self._read.pop(name, None)
            self._own.discard(name)
        self._keep_listed()

    def _keep_listed(self, newer: Sequence[PackTable] = ()) -> None:
        """Keep only packs that an index which is still there lists. ``newer``: what is known better now."""
        listed = set[str]().union(*self._read.values())
        kept = Index()
        kept.add(newer)
        kept.add(pack for pack in self._index.tables() if pack.name in listed)
        self._index = kept

    def _open(self, name: str) -> list[PackTable]:
        try:
            found = index.decode(name, self._backend.get(name))
        except (IndexDamaged, ObjectTorn) as error:
            self._torn.add(name)
            self.damage.append(error if isinstance(error, Damaged) else IndexDamaged(str(error)))
            return []
        except ObjectMissing:
            return []  # removed since it was listed
        self._read[name] = {pack.name for pack in found}
        return found

    def _from_packs(self) -> Iterator[PackTable]:
        names = [info.name for info in self._backend.list(packs.FOLDER) if info.name not in self._index.packs]
        return self._tables_of(names)

    def _tables_of(self, names: Sequence[str]) -> Iterator[PackTable]:
        for name in names:
            try:
                packs.pack_digest(name)
                size, table = packs.read_table(self._backend, name)
            except (PackDamaged, ValueError) as error:
                if str(error) not in map(str, self.damage):  # said once, however often it is tried
                    self.damage.append(PackDamaged(str(error)))
            except ObjectMissing:
                continue
            else:
                yield PackTable(name, size, table)
