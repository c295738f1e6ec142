"""Content for the store's tests: made of numbered pages, so that a test can say what is shared with what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from midstep.vault.backends.base import Backend
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.store.repository import Content, Repository, Stats

PAGE = 4096
MIB = 1 << 20


def noise(pages: int, seed: int) -> bytes:
    """Pages of which no two are alike."""
    return np.random.default_rng(seed).bytes(pages * PAGE)


def text(pages: int, seed: int) -> bytes:
    """The same, and it compresses well."""
    lines = np.random.default_rng(seed).integers(0, 10**6, pages * PAGE // 8)
    return b"".join(b"%07d\n" % number for number in lines.tolist())


def repository(backend: Backend | None = None) -> Repository:
    """A small one: 2 MiB a pack."""
    return Repository(backend or MemoryBackend(), workers=2, memory_bytes=32 * MIB)


def store(into: Repository, *contents: bytes) -> tuple[list[Content], Stats]:
    with into.writer() as writer:
        found = [writer.add_bytes(data) for data in contents]
    return found, writer.finish()


def read_back(source: Repository, content: Content, folder: Path) -> bytes:
    source.read(content, folder / "read-back")
    return (folder / "read-back").read_bytes()


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def names(backend: MemoryBackend, folder: str) -> list[str]:
    return [info.name for info in backend.list(folder)]


def all_ids(contents: Iterable[Content]) -> set[bytes]:
    return {chunk for content in contents for chunk in content.ids()}
