"""A clock for tests that stands still until it is moved, and then jumps from one sleeper's moment to the
next.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
SETTLE_ROUNDS = 50  # turns of the event loop in which tasks may hand on to each other before time moves


class NothingSleeps(Exception):
    """`run` waits for something that no passing of time will bring: a deadlock, or input from outside of the
    test.
    """


class MockClock:
    """For code that waits by this clock, by asyncio's futures, queues and locks. Threads and sockets are not
    waited for.
    """

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._wall_start_s = start_s
        self._passed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_s(self) -> float:
        return self._wall_start_s + self._passed_s

    def monotonic_s(self) -> float:
        return self._passed_s

    def step_wall(self, by_s: float) -> None:
        """Set the wall clock, as an operator does; the monotonic one does not notice."""
        self._wall_start_s += by_s

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.get_running_loop().create_future()
        self._count += 1  # equal moments: first come, first woken
        heapq.heappush(self._sleepers, (self._passed_s + duration_s, self._count, wake))
        await wake

    async def advance(self, duration_s: float) -> None:
        """Move on, waking each sleeper at its moment and letting the tasks settle in between."""
        end_s = self._passed_s + duration_s
        await _settle()
        while (next_s := self._next_s()) is not None and next_s <= end_s:
            await self._wake_at(next_s)
        self._passed_s = end_s

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run to the end, jumping whenever all tasks wait. Raises NothingSleeps, or what the work raises."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                await _settle(task)
                if task.done():
                    return task.result()
                next_s = self._next_s()
                if next_s is None:
                    raise NothingSleeps(f"at {self._passed_s} s nothing sleeps, and {task!r} is not done")
                await self._wake_at(next_s)
        finally:
            task.cancel()

    def _next_s(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def _wake_at(self, moment_s: float) -> None:
        self._passed_s = moment_s
        while self._next_s() == moment_s:
            heapq.heappop(self._sleepers)[2].set_result(None)
        await _settle()


async def _settle(until: asyncio.Future[Any] | None = None) -> None:
    for _ in range(SETTLE_ROUNDS):
        if until is not None and until.done():
            return
        await asyncio.sleep(0)
