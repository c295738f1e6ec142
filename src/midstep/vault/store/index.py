"""The index: which chunk lies where.

An index object (index/HASH, the hash of all of it) lists some packs and what is in them:

    magic (8), version (2), zeros (2), packs (4), chunks (8)
    packs:  hash (32), size (8) of each
    chunks: ids (32 each), then as many pack numbers, offsets, stored and plain lengths (4 each)

In memory the chunks are a few sorted arrays, 56 bytes a chunk: about 0.06 % of what is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from midstep.vault.errors import FormatUnknown, IndexDamaged
from midstep.vault.store.content import ChunkId, Stored
from midstep.vault.store.packs import ENTRY, Table, pack_digest, pack_name

FOLDER = "index"
VERSION = 1
_MAGIC = b"MIDSTEPI"
_HEADER = struct.Struct("<8sHHIQ")
_PACK = np.dtype([("hash", "V32"), ("size", "<u8")])
_TABLES = 6  # so many sorted tables are searched one after the other, then they become one

Words = NDArray[np.uint64]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class PackTable:
    """A pack, its size in bytes, and what is in it."""

    name: str
    size: int
    table: Table


def encode(packs: Sequence[PackTable]) -> tuple[str, bytes]:
    """The name and the bytes of an index object."""
    rows = np.concatenate([np.empty(0, ENTRY), *(pack.table for pack in packs)])
    numbers = np.repeat(np.arange(len(packs), dtype="<u4"), [len(pack.table) for pack in packs])
    head = np.array([(pack_digest(pack.name), pack.size) for pack in packs], _PACK)
    columns = (rows["id"], numbers, rows["offset"], rows["stored"], rows["plain"])
    data = b"".join(
        (
            _HEADER.pack(_MAGIC, VERSION, 0, len(packs), len(rows)),
            head.tobytes(),
            *(np.ascontiguousarray(column).tobytes() for column in columns),
        )
    )
    return f"{FOLDER}/{blake3(data).hexdigest()}", data


def decode(name: str, data: bytes) -> list[PackTable]:
    """What `encode` was given. IndexDamaged, FormatUnknown."""
    if name != f"{FOLDER}/{blake3(data).hexdigest()}":
        raise IndexDamaged(
            f"{name} is not what was written ({len(data)} bytes); `midstep vault check` rebuilds it"
        )
    magic, version, _, packs, chunks = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise FormatUnknown(
            f"{name} has format {version}, this Midstep reads {VERSION}: read it with a newer one"
        )
    head = np.frombuffer(data, _PACK, packs, _HEADER.size)
    at = _HEADER.size + head.nbytes
    rows = np.empty(chunks, ENTRY)
    rows["id"] = np.frombuffer(data, "V32", chunks, at)
    columns = np.frombuffer(data, np.uint32, 4 * chunks, at + 32 * chunks).reshape(4, chunks)
    for field, column in zip(("offset", "stored", "plain"), columns[1:]):
        rows[field] = column
    bounds: list[int] = np.searchsorted(columns[0], np.arange(packs + 1, dtype=np.uint32)).tolist()
    return [
        PackTable(
            pack_name(bytes(pack["hash"])), int(pack["size"]), rows[bounds[number] : bounds[number + 1]]
        )
        for number, pack in enumerate(head)
    ]


@dataclass(frozen=True, slots=True)
class Places:
    """Where chunks lie, column by column. `pack` is a number of `Index.pack_names`, -1 where not known."""

    pack: NDArray[np.int64]
    offset: Numbers
    stored: Numbers
    plain: Numbers


class _Sorted:
    """Chunks ordered by the first eight bytes of their ids."""

    def __init__(self, ids: Words, numbers: Numbers) -> None:
        order = np.argsort(ids[:, 0], kind="stable")
        self.ids, self.numbers = ids[order], numbers[order]  # numbers: pack, offset, stored, plain
        self.keys = np.ascontiguousarray(self.ids[:, 0])

    def find(self, wanted: Words) -> NDArray[np.int64]:
        """The row of each, or -1."""
        if not len(self.keys):
            return np.full(len(wanted), -1, np.int64)
        rows = np.searchsorted(self.keys, wanted[:, 0]).astype(np.int64)
        rows[rows == len(self.keys)] = 0
        wrong = np.flatnonzero((self.ids[rows] != wanted).any(axis=1))
        for which in wrong.tolist():
            rows[which] = self._search(wanted[which], int(rows[which]))
        return rows

    def has(self, wanted: Words) -> NDArray[np.bool_]:
        """Whether each has a row."""
        if not len(self.keys):
            return np.zeros(len(wanted), np.bool_)
        rows = np.searchsorted(self.keys, wanted[:, 0])
        np.minimum(rows, len(self.keys) - 1, out=rows)
        same: NDArray[np.bool_] = (self.ids[rows] == wanted).all(axis=1)
        if same.all():
            return same
        alike = ~same & (self.keys[rows] == wanted[:, 0])
        for which in np.flatnonzero(alike).tolist():
            same[which] = self._search(wanted[which], int(rows[which])) >= 0
        return same

    def _search(self, wanted: Words, row: int) -> int:
        # two chunks whose ids begin alike: will never happen, and must not go wrong
        while row < len(self.keys) and self.keys[row] == wanted[0]:
            if (self.ids[row] == wanted).all():
                return row
            row += 1
        return -1

    def every(self, wanted: Words) -> Numbers:
        """All rows that are of this chunk."""
        first = int(np.searchsorted(self.keys, wanted[:1], "left")[0])
        last = int(np.searchsorted(self.keys, wanted[:1], "right")[0])
        same = (self.ids[first:last] == wanted).all(axis=1)
        return self.numbers[first:last][same]


class Index:
    """What is known of a repository's packs. Not locked: one thread adds, any look up (and see what was
    there when they began)."""

    def __init__(self) -> None:
        self.packs: dict[str, int] = {}  # name -> size in bytes
        self.pack_names: list[str] = []
        self._tables: tuple[_Sorted, ...] = ()

    def add(self, packs: Iterable[PackTable]) -> None:
        """More packs; those that are here already change nothing."""
        fresh = list({pack.name: pack for pack in packs if pack.name not in self.packs}.values())
        if not fresh:
            return
        first = len(self.pack_names)
        self.pack_names.extend(pack.name for pack in fresh)
        self.packs.update((pack.name, pack.size) for pack in fresh)
        rows = np.concatenate([pack.table for pack in fresh])
        numbers = np.empty((len(rows), 4), np.uint32)
        numbers[:, 0] = np.repeat(np.arange(first, first + len(fresh)), [len(pack.table) for pack in fresh])
        for column, field in enumerate(("offset", "stored", "plain"), 1):
            numbers[:, column] = rows[field]
        tables = (*self._tables, _Sorted(as_words(rows["id"].tobytes()), numbers))
        self._tables = tables if len(tables) <= _TABLES else (_merged(tables),)

    def places(self, ids: Sequence[ChunkId]) -> Places:
        """Where each of these is."""
        tables = self._tables
        wanted = as_words(b"".join(ids))
        found = np.zeros((len(ids), 4), np.uint32)
        pack = np.full(len(ids), -1, np.int64)
        for table in tables:
            rows = table.find(wanted)
            here = np.flatnonzero((rows >= 0) & (pack < 0))
            found[here] = table.numbers[rows[here]]
            pack[here] = found[here, 0]
        return Places(pack, found[:, 1], found[:, 2], found[:, 3])

    def known(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Whether each is here."""
        wanted = as_words(b"".join(ids))
        found = np.zeros(len(ids), np.bool_)
        for table in self._tables:
            found |= table.has(wanted)
            if found.all():
                break
        return found.tolist()

    def copies(self, chunk: ChunkId) -> list[Stored]:
        """Every place where it lies."""
        wanted = as_words(chunk)[0]
        rows: list[list[int]] = [row for table in self._tables for row in table.every(wanted).tolist()]
        return [Stored(chunk, self.pack_names[pack], at, stored, plain) for pack, at, stored, plain in rows]

    def tables(self) -> Iterator[PackTable]:
        """All packs with what is in them, by name."""
        every = _merged(self._tables)
        order = np.lexsort((every.numbers[:, 1], every.numbers[:, 0]))
        bounds = np.searchsorted(every.numbers[order, 0], np.arange(len(self.pack_names) + 1))
        for number in sorted(range(len(self.pack_names)), key=self.pack_names.__getitem__):
            rows = order[bounds[number] : bounds[number + 1]]
            table = np.empty(len(rows), ENTRY)
            table["id"] = np.frombuffer(every.ids[rows].tobytes(), "V32")
            for column, field in enumerate(("offset", "stored", "plain"), 1):
                table[field] = every.numbers[rows, column]
            name = self.pack_names[number]
            yield PackTable(name, self.packs[name], table)


def _merged(tables: Sequence[_Sorted]) -> _Sorted:
    ids = [np.empty((0, 4), np.uint64), *(table.ids for table in tables)]
    numbers = [np.empty((0, 4), np.uint32), *(table.numbers for table in tables)]
    return _Sorted(np.concatenate(ids), np.concatenate(numbers))


def as_words(ids: bytes) -> Words:
    return np.frombuffer(ids, np.uint64).reshape(-1, 4)
