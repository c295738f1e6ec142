"""Work beside the queue of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any


class Tasks:
    """Tasks that nobody waits for: kept until they end, as the event loop does not."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Let go of all."""
        for task in list(self._tasks):
            task.cancel()


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them all, then wait for each. Raises what one of them did."""
    running = list(tasks)
    for task in running:
        task.cancel()
    for task in running:
        with contextlib.suppress(asyncio.CancelledError):
            await task
