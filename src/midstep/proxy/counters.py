"""What a proxy has done, for its status."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from midstep.mailbox.contract import Kind
from midstep.proxy.boxes import Posted

_REDUCTIONS = frozenset((Kind.ALLREDUCE, Kind.REDUCE, Kind.REDUCE_SCATTER))
_MOST = 256  # kinds of reductions that are told apart


@dataclass(slots=True)
class Rhythm:
    """How often the reduction comes that moves the most bytes: a job that has no optimizer has this beat. By
    kind and size, since those repeat from step to step."""

    beats: int = 0
    _sums: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    _loudest: tuple[int, int] = (-1, -1)

    def reduced(self, kind: int, nbytes: int) -> None:
        """A reduction was carried out (its first chunk, where it has several)."""
        key = (kind, nbytes)
        sums = self._sums
        if key not in sums and len(sums) >= _MOST:
            return
        total = sums[key] = sums.get(key, 0) + nbytes
        if key == self._loudest:
            self.beats += 1
        elif total > sums.get(self._loudest, -1):
            self._loudest = key


@dataclass(slots=True)
class Counters:
    """Sums since the proxy began; bytes are inputs and outputs of local members."""

    ops: int = 0
    bytes: int = 0
    executing_s: float = 0.0
    waiting_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    rhythm: Rhythm = field(default_factory=Rhythm)

    def sums(self) -> dict[str, float]:
        """The numbers, by name."""
        names = ("ops", "bytes", "executing_s", "waiting_s", "sent_bytes", "received_bytes")
        return {name: getattr(self, name) for name in names}

    def clock(self) -> float:
        """Now, in seconds of an arbitrary origin."""
        return time.perf_counter()

    def spent(self, posts: Collection[Posted], seconds: float) -> None:
        """So long was worked on an operation of these members."""
        self.executing_s += seconds
        for post in posts:
            post.box.carried_s += seconds

    def carried(self, posts: Collection[Posted], started_s: float) -> None:
        """An operation was carried out for these members."""
        self.ops += 1
        seconds = time.perf_counter() - started_s
        self.executing_s += seconds
        reduces = False
        for post in posts:
            box, body = post.box, post.body
            nbytes = body.in_len + body.out_len
            self.bytes += nbytes
            box.ops += 1
            box.bytes += nbytes
            box.carried_s += seconds
            reduces = body.kind in _REDUCTIONS
            if reduces:
                box.reduced_bytes += body.in_len or body.total  # 0: its memory stayed in place
        if reduces:
            body = next(iter(posts)).body
            if body.chunk == 0:
                self.rhythm.reduced(body.kind, body.total)
