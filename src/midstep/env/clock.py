"""Time as an argument."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds since 1970, UTC; may jump. For people and files; never for measuring."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment; never goes back. For deadlines and durations, within one process."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Let others run for that long; at once for zero and less."""
        ...


class BlockingClock(Protocol):
    """For threads without an event loop."""

    def monotonic_s(self) -> float:
        """As Clock's."""
        ...

    def block(self, duration_s: float) -> None:
        """Hold up the calling thread for that long; not at all for zero and less."""
        ...


class RealClock:
    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(max(0.0, duration_s))

    def block(self, duration_s: float) -> None:
        time.sleep(max(0.0, duration_s))
