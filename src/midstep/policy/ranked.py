"""Things in order of a whole number. There are few numbers and many things, so both are kept: a sorted
list of the numbers, and for each the things in the order in which they came."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ranked(Generic[T]):
    """Adding, removing and the ends cost about nothing, however many things there are."""

    __slots__ = ("_by_rank", "_count", "_ranks")

    def __init__(self) -> None:
        self._by_rank: dict[int, dict[T, None]] = {}
        self._ranks: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rank: int, thing: T) -> None:
        """It is not in there."""
        bucket = self._by_rank.get(rank)
        if bucket is None:
            bucket = self._by_rank[rank] = {}
            insort(self._ranks, rank)
        bucket[thing] = None
        self._count += 1

    def remove(self, rank: int, thing: T) -> None:
        """KeyError: it is not in there, with that rank."""
        bucket = self._by_rank[rank]
        del bucket[thing]
        self._count -= 1
        if not bucket:
            del self._by_rank[rank]
            del self._ranks[bisect_left(self._ranks, rank)]

    @property
    def lowest(self) -> int | None:
        """Rank; None: there is nothing."""
        return self._ranks[0] if self._ranks else None

    @property
    def highest(self) -> int | None:
        """Rank; None: there is nothing."""
        return self._ranks[-1] if self._ranks else None

    def first(self) -> T | None:
        """Of the lowest rank, the one that came first."""
        return next(iter(self._by_rank[self._ranks[0]])) if self._ranks else None

    def up(self) -> Iterator[T]:
        """From the lowest rank on."""
        for rank in self._ranks:
            yield from self._by_rank[rank]

    def down_to(self, least: int) -> Iterator[list[T]]:
        """From the highest rank down to that one, a list of equals at a time."""
        for rank in reversed(self._ranks):
            if rank < least:
                return
            yield list(self._by_rank[rank])
