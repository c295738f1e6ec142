"""The fleet's history as rows, and waiting for new ones."""

from __future__ import annotations

import asyncio

from midstep.control.journal import Journal
from midstep.control.service import Service
from midstep.engine.effects import Log
from midstep.wire.api import EventView

MAX_EVENTS = 10_000


class History:
    """Reads of the events table; `wait` returns when there is something new."""

    def __init__(self, journal: Journal, service: Service) -> None:
        self._journal, self._service = journal, service
        self._news = asyncio.Event()
        service.on_change.append(lambda before, after: self.wake())

    def note(self, log: Log) -> None:
        """Add a line that belongs to no job."""
        self._journal.note(self._service.now_s(), log)
        self.wake()

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    def read(self, job_id: str | None, after: int, limit: int) -> list[EventView]:
        """Events after a number, oldest first."""
        return self._journal.events(job_id, after, min(limit, MAX_EVENTS))

    async def wait(self, job_id: str | None, after: int, limit: int, wait_s: float) -> list[EventView]:
        """The same; when there are none yet, those that come within ``wait_s``."""
        try:
            async with asyncio.timeout(wait_s):
                while not (rows := self.read(job_id, after, limit)):
                    await self._news.wait()
            return rows
        except TimeoutError:
            return []
