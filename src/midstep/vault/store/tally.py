"""What a writer counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter

from midstep.vault.store.content import ZERO, Stats
from midstep.vault.store.scan import Chunks

_numbers = attrgetter(*(f.name for f in fields(Stats)))


def added(one: Stats, other: Stats) -> Stats:
    """The sum, field by field."""
    return Stats(*(a + b for a, b in zip(_numbers(one), _numbers(other), strict=True)))


def stats_of(chunks: Chunks, new: int, new_bytes: int) -> Stats:
    """Of some chunks of a file, so many of which, and bytes, had to be stored."""
    total = sum(length for _, length in chunks)
    zero = sum(length for chunk, length in chunks if chunk == ZERO)
    return Stats(0, total, zero, total - zero - new_bytes, new_bytes, 0, new)


def stored_after_all(lengths: Sequence[int]) -> Stats:
    """What seemed to be known, and was stored after all."""
    return Stats(0, 0, 0, -sum(lengths), sum(lengths), 0, len(lengths))
