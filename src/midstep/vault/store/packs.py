"""Packs: many chunks in one object, which says at its end what it holds.

    stored form of each chunk, one after the other
    table    id (32), offset (4), stored length (4), plain length (4) of each
    footer   magic (8), version (2), zeros (2), chunks (4), length of what is before the table (8),
             unique bytes (16), BLAKE3 of the table and of the footer up to here (32)

All numbers little-endian. An object's name is the BLAKE3 of all of it; no two packs have the same, for one
that a collector is about to remove must not come again meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.errors import FormatUnknown, ObjectTorn, PackDamaged
from midstep.vault.store.content import ChunkId, Stored

FOLDER = "packs"
VERSION = 1
_MAGIC = b"MIDSTEPP"
_FOOTER = struct.Struct("<8sHHIQ16s")
_FOOTER_BYTES = _FOOTER.size + 32
ENTRY = np.dtype([("id", "V32"), ("offset", "<u4"), ("stored", "<u4"), ("plain", "<u4")])
_TAIL = 64 << 10  # one read takes the tables of most packs
Table = NDArray[np.void]


def pack_name(digest: bytes) -> str:
    return f"{FOLDER}/{digest[:1].hex()}/{digest.hex()}"


def pack_digest(name: str) -> bytes:
    """The hash in a pack's name. ValueError if it is none."""
    digest = bytes.fromhex(name.rpartition("/")[2])
    if len(digest) != 32 or pack_name(digest) != name:
        raise ValueError(f"{name} is not the name of a pack")
    return digest


class Pack:
    """One that is being filled, in memory of a fixed size."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size)
        self.reset()

    def reset(self) -> None:
        """Empty it, to fill it again."""
        self.used = 0
        self.entries: list[tuple[ChunkId, int, int, int]] = []

    def fits(self, payload: int) -> bool:
        """Whether one more chunk has room."""
        return self.used + 1 + payload + (len(self.entries) + 1) * ENTRY.itemsize + _FOOTER_BYTES <= len(
            self._bytes
        )

    def add(self, chunk: ChunkId, kind: int, payload: Buffer, plain: int) -> None:
        """Append a chunk's stored form. It has to fit."""
        at, stored = self.used, 1 + len(payload)
        self._bytes[at] = kind
        memoryview(self._bytes)[at + 1 : at + stored] = payload
        self.entries.append((chunk, at, stored, plain))
        self.used += stored

    def seal(self, unique: bytes) -> tuple[bytes, memoryview, Table]:
        """Its hash, the whole object, and its table. `unique`: 16 bytes that no other pack has."""
        table = np.array(self.entries, ENTRY)
        footer = _FOOTER.pack(_MAGIC, VERSION, 0, len(self.entries), self.used, unique)
        end = table.tobytes() + footer
        end += blake3(end).digest()
        whole = memoryview(self._bytes)[: self.used + len(end)]
        whole[self.used :] = end
        return blake3(whole).digest(), whole, table


def read_table(backend: Backend, name: str) -> tuple[int, Table]:
    """A pack's size and what it holds, from its end. PackDamaged, ObjectMissing, FormatUnknown."""
    size = backend.size(name)
    length = min(size, _TAIL)
    try:
        tail = backend.get(name, size - length, length)
        count, start = _footer(name, tail, size)
        if size - start > length:
            tail = backend.get(name, start, size - start)
    except ObjectTorn as error:
        raise PackDamaged(f"pack {name} became shorter while it was read: {error}") from None
    return size, _table(name, tail[-(size - start) :], count)


def parse(name: str, whole: bytes) -> Table:
    """The table of a pack that was read entirely. PackDamaged, FormatUnknown."""
    count, start = _footer(name, whole, len(whole))
    return _table(name, whole[start:], count)


def stored_in(name: str, table: Table) -> Sequence[Stored]:
    """The table's rows."""
    return [
        Stored(bytes(row["id"]), name, int(row["offset"]), int(row["stored"]), int(row["plain"]))
        for row in table
    ]


def _footer(name: str, tail: bytes, size: int) -> tuple[int, int]:
    """The number of chunks, and where the table begins."""
    if len(tail) < _FOOTER_BYTES:
        raise PackDamaged(f"pack {name} has {size} bytes, which is too short for one")
    magic, version, _, count, start, _ = _FOOTER.unpack_from(tail, len(tail) - _FOOTER_BYTES)
    whole = start + count * ENTRY.itemsize + _FOOTER_BYTES == size
    if magic != _MAGIC or not whole:
        raise PackDamaged(f"the end of pack {name} is not a pack's ({size} bytes)")
    if version != VERSION:
        raise FormatUnknown(
            f"pack {name} has format {version}, this Midstep reads {VERSION}: read it with a newer Midstep"
        )
    return count, start


def _table(name: str, end: bytes, count: int) -> Table:
    if blake3(end[:-32]).digest() != end[-32:]:
        raise PackDamaged(f"the table of pack {name} is not what was written")
    return np.frombuffer(end, ENTRY, count)
