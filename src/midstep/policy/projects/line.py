"""Jobs in a line, each with a size: how far an amount reaches in it takes the root of their number."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias

from midstep.policy.ledger import Job

Turn: TypeAlias = tuple[bool, int, bool, float, str]
"""Where a job stands; no two have the same."""

_MOST = 256  # in a block; a fuller one is halved


class Line:
    """Blocks of neighbours, with the sum of each."""

    def __init__(self) -> None:
        self._blocks: list[list[tuple[Turn, int, Job]]] = []
        self._sums: list[int] = []
        self._entries: dict[Job, tuple[Turn, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def turn(self, job: Job) -> Turn | None:
        """Where it stands; None: it does not."""
        entry = self._entries.get(job)
        return entry[0] if entry is not None else None

    def put(self, job: Job, turn: Turn, size: int) -> None:
        """It stands there from now on, with that size."""
        if self._entries.get(job) == (turn, size):
            return
        self.remove(job)
        self._entries[job] = (turn, size)
        if not self._blocks:
            self._blocks, self._sums = [[(turn, size, job)]], [size]
            return
        at = min(self._block(turn), len(self._blocks) - 1)
        block = self._blocks[at]
        block.insert(_place(block, turn), (turn, size, job))
        self._sums[at] += size
        if len(block) > _MOST:
            self._blocks[at : at + 1] = [block[: _MOST // 2], block[_MOST // 2 :]]
            self._sums[at : at + 1] = [sum(entry[1] for entry in half) for half in self._blocks[at : at + 2]]

    def remove(self, job: Job) -> None:
        """It stands there no more, if it did."""
        entry = self._entries.pop(job, None)
        if entry is None:
            return
        turn, size = entry
        at = self._block(turn)
        block = self._blocks[at]
        del block[_place(block, turn)]
        self._sums[at] -= size
        if not block:
            del self._blocks[at], self._sums[at]

    def reach(self, amount: float) -> Turn | None:
        """Where the first stands whose size, with all before it, is more than that. None: nobody."""
        used = 0
        for block, whole in zip(self._blocks, self._sums):
            if used + whole <= amount:
                used += whole
                continue
            for turn, size, _ in block:
                used += size
                if used > amount:
                    return turn
        return None

    def between(self, one: Turn | None, other: Turn | None) -> Iterator[Job]:
        """Who stands from the one of these on, and before the other. None: behind all."""
        ends = sorted(turn for turn in (one, other) if turn is not None)
        if not ends:
            return
        first, last = ends[0], ends[1] if len(ends) > 1 else None
        for block in self._blocks[self._block(first) :]:
            for turn, _, job in block[_place(block, first) :]:
                if last is not None and turn >= last:
                    return
                yield job

    def _block(self, turn: Turn) -> int:
        """The first that ends with it, or behind it."""
        return bisect_left(self._blocks, turn, key=lambda block: block[-1][0])


def _place(block: list[tuple[Turn, int, Job]], turn: Turn) -> int:
    return bisect_left(block, turn, key=lambda entry: entry[0])
