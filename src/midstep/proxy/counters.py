"""What a proxy has done, for its status."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from midstep.proxy.boxes import Posted


@dataclass(slots=True)
class Counters:
    """Sums since the proxy began; bytes are inputs and outputs of local members."""

    ops: int = 0
    bytes: int = 0
    executing_s: float = 0.0
    waiting_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0

    def clock(self) -> float:
        """Now, in seconds of an arbitrary origin."""
        return time.perf_counter()

    def carried(self, posts: Collection[Posted], started_s: float) -> None:
        """An operation was carried out for these members."""
        self.ops += 1
        for post in posts:
            nbytes = post.body.in_len + post.body.out_len
            self.bytes += nbytes
            post.box.ops += 1
            post.box.bytes += nbytes
        self.executing_s += time.perf_counter() - started_s
