"""The nouns of the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

ChunkId: TypeAlias = bytes
"""BLAKE3 of a chunk's plain bytes: 32 of them."""

ZERO: ChunkId = bytes(32)
"""Stands for a run of zero bytes of any length: nothing is stored for it, and it becomes a hole again."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file: chunk after chunk, each with its plain length. Runs of zeros are under `ZERO`."""

    size: int  # bytes
    chunks: tuple[tuple[ChunkId, int], ...]

    def ids(self) -> Iterator[ChunkId]:
        """The chunks that have to be somewhere; one that occurs twice comes twice."""
        return (chunk for chunk, _ in self.chunks if chunk != ZERO)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a writer or a reader is. Bytes of files; holes count as done."""

    done_bytes: int
    total_bytes: int  # of what was handed in so far
    stored_bytes: int  # written to the backend (writer), or read from it (reader)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a writer did. All in bytes of plain content, but `stored_bytes`."""

    files: int = 0
    total_bytes: int = 0  # = zero + known + new
    zero_bytes: int = 0  # runs of zeros and holes
    known_bytes: int = 0  # was in the repository already, or came twice
    new_bytes: int = 0
    stored_bytes: int = 0  # packs and indexes, as written
    new_chunks: int = 0
    packs: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a chunk lies: `stored` bytes from `offset` of the pack on."""

    chunk: ChunkId
    pack: str  # the object's name, packs/xx/...
    offset: int
    stored: int
    plain: int


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack that an index names: its name, its size in bytes, and what is in it."""

    name: str
    size: int
    chunks: tuple[Stored, ...]
