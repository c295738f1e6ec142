"""The nouns of the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

ChunkId: TypeAlias = bytes
"""BLAKE3 of a chunk's plain bytes: 32 of them."""

ZERO: ChunkId = bytes(32)
"""Stands for a run of zero bytes of any length: nothing is stored for it, and it becomes a hole again."""


class Span(NamedTuple):
    """So many bytes of a file: a whole chunk (``offset`` is None), or a part of one from its byte ``offset``
    on. Runs of zeros are under `ZERO`."""

    chunk: ChunkId
    length: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file: span after span."""

    size: int  # bytes
    spans: tuple[Span, ...]

    def ids(self) -> Iterator[ChunkId]:
        """The chunks that have to be somewhere; one that occurs twice comes twice."""
        return (span.chunk for span in self.spans if span.chunk != ZERO)

    @property
    def in_parts(self) -> bool:
        """Whether it needs a part of a chunk."""
        return any(span.offset is not None for span in self.spans)


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
