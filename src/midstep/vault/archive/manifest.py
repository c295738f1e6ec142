"""What one archived snapshot is, and its bytes.

The object: 8 bytes that say what this is, 2 bytes of format version, BLAKE3 (32 bytes) of version and body,
body. The body is JSON under zstd. So a flipped bit anywhere is found, and one of another version is told from
a damaged one. Version 2 has files that consist of parts of chunks (trees.py); what has none is of version 1,
which is all that older programs read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import zstandard
from blake3 import blake3

from midstep.vault.archive.trees import Kind, Tree, contents_of, from_rows, to_rows
from midstep.vault.errors import FormatUnknown, ManifestDamaged
from midstep.vault.parts import Manifest, manifest_of
from midstep.vault.store.content import ZERO, ChunkId

MAGIC = b"MIDSTEPM"
FORMAT, FORMAT_WHOLE = 2, 1  # with parts of chunks, and without
_HEAD_BYTES = len(MAGIC) + 2 + 32
_LEVEL = 3


@dataclass(frozen=True, slots=True)
class ArchivedSnapshot:
    """The job's whole state at a cut.

    ``manifest``: parts with the freeze records, rendezvous store, epoch; ``trees``: `rank-R` (process images)
    and `home-K` (work directory, logs, ...); ``logs``: rank -> bytes of its log at the cut; ``generation`` of
    the job's owner who archived it; ``created_s``: seconds since 1970, for people; ``reason``: why it was
    taken; ``versions``: name -> version of what wrote it; bytes: plain size, and what of it was new.
    """

    manifest: Manifest
    trees: Mapping[str, Tree]
    generation: int
    created_s: float
    reason: str = ""
    logs: Mapping[int, int] = field(default_factory=dict[int, int])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    nbytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0

    @property
    def snapshot_id(self) -> str:
        """Its id."""
        return self.manifest.snapshot_id

    @property
    def job_id(self) -> str:
        """The job that it is of."""
        return self.manifest.job_id

    @property
    def order(self) -> tuple[int, int, tuple[float, ...]]:
        """As a manifest's, but by owner before all."""
        return (self.generation, *self.manifest.order)

    def ids(self) -> Iterator[ChunkId]:
        """Every chunk that it needs, as often as it needs it; holes need none."""
        for tree in self.trees.values():
            for content in contents_of(tree):
                yield from content.ids()

    def plain_bytes(self) -> dict[ChunkId, int]:
        """Every chunk that it needs, and how long that is; of one that it needs parts of: at least."""
        found: dict[ChunkId, int] = {}
        for content in (content for tree in self.trees.values() for content in contents_of(tree)):
            for chunk, length, offset in content.spans:
                if chunk != ZERO:
                    found[chunk] = max(found.get(chunk, 0), (offset or 0) + length)
        return found


def log_sizes(trees: Mapping[str, Tree]) -> dict[int, int]:
    """Rank -> bytes of its log, from the homes' trees."""
    sizes: dict[int, int] = {}
    for name, tree in trees.items():
        for entry in tree if name.startswith("home-") else ():
            folder, _, file = entry.path.partition("/")
            rank = file.removeprefix("rank-").removesuffix(".log")
            if folder == "logs" and entry.kind is Kind.FILE and rank.isdecimal() and entry.content:
                sizes[int(rank)] = entry.content.size
    return sizes


def encode(snapshot: ArchivedSnapshot) -> bytes:
    """The object."""
    raw = {
        "manifest": asdict(snapshot.manifest),
        "trees": {name: to_rows(tree) for name, tree in sorted(snapshot.trees.items())},
        "generation": snapshot.generation,
        "created_s": snapshot.created_s,
        "reason": snapshot.reason,
        "logs": {str(rank): size for rank, size in sorted(snapshot.logs.items())},
        "versions": dict(sorted(snapshot.versions.items())),
        "bytes": [snapshot.nbytes, snapshot.new_bytes, snapshot.stored_bytes],
    }
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(json.dumps(raw, separators=(",", ":")).encode())
    parts = any(content.in_parts for tree in snapshot.trees.values() for content in contents_of(tree))
    sealed = (FORMAT if parts else FORMAT_WHOLE).to_bytes(2, "big")
    return MAGIC + sealed + blake3(sealed + body).digest() + body


def decode(data: bytes, name: str) -> ArchivedSnapshot:
    """Read an object; ``name`` for messages. ManifestDamaged; FormatUnknown: written by another version."""
    if len(data) < _HEAD_BYTES or data[: len(MAGIC)] != MAGIC:
        raise ManifestDamaged(f"{name} is not a snapshot's manifest")
    version, digest, body = data[8:10], data[10:_HEAD_BYTES], data[_HEAD_BYTES:]
    if blake3(version + body).digest() != digest:
        raise ManifestDamaged(f"{name} is damaged: its content is not what was written")
    if not FORMAT_WHOLE <= (found := int.from_bytes(version, "big")) <= FORMAT:
        raise FormatUnknown(
            f"{name} has format {found}, this version of Midstep reads formats {FORMAT_WHOLE} to {FORMAT}: "
            f"use a {'newer' if found > FORMAT else 'older'} Midstep for it (it is left as it is)"
        )
    try:
        raw: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(body))
        return _snapshot(raw)
    except (zstandard.ZstdError, ValueError, TypeError, KeyError) as error:
        raise ManifestDamaged(f"{name} cannot be read: {error}") from None


def _snapshot(raw: dict[str, Any]) -> ArchivedSnapshot:
    trees = {str(name): from_rows(rows) for name, rows in raw["trees"].items()}
    nbytes, new_bytes, stored_bytes = raw["bytes"]
    return ArchivedSnapshot(
        manifest_of(raw["manifest"]),
        trees,
        raw["generation"],
        raw["created_s"],
        raw["reason"],
        {int(rank): size for rank, size in raw["logs"].items()},
        raw["versions"],
        nbytes,
        new_bytes,
        stored_bytes,
    )
