"""Snapshots that somebody waits for are archived out of turn and at normal priority: a job that goes to
another region stands still meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from midstep.engine.record import JobRecord
from midstep.model.lifecycle import Stage
from midstep.vault.archive.archive import job_of
from midstep.vault.archive.orders import News, Orders
from midstep.vault.archive.priority import hasten

Run = Callable[[str, Orders, bool], Awaitable[tuple[int, str]]]  # region, orders, whether somebody waits


@dataclass(slots=True)
class Running:
    """One archiver process."""

    region: str
    orders: Orders
    pid: int
    _failed: bool = False
    _moot: bool = False

    def note(self, news: News, moot: bool) -> None:
        """What it said. ``moot``: of a snapshot that nobody needs any more."""
        if news.what == "failed":
            self._failed, self._moot = self._failed or not moot, self._moot or moot

    def code(self, code: int) -> int:
        """How it ended: well, if nothing went wrong but what nobody needs any more."""
        return 0 if code == 1 and self._moot and not self._failed else code

    def handles(self, region: str, snapshot_id: str) -> bool:
        """Whether it stores the snapshot, or may take its job: two at once would outrank each other."""
        mine = snapshot_id in self.orders.store or job_of(snapshot_id) in self.orders.claim
        return region == self.region and mine


@dataclass(slots=True)
class Hurry:
    """Who waits for what. ``now``: region and job of what is being stored out of turn, which the ordinary
    archiver leaves alone. ``changed`` is set whenever there is news."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    now: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    running: list[Running] = field(default_factory=list[Running])
    done_bytes: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    errors: dict[str, News] = field(default_factory=dict[str, News])  # the last one of each snapshot
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])

    def start(self, region: str, snapshot_id: str, orders: Orders, run: Run) -> None:
        """Have a snapshot archived now. Again while it is under way: nothing more."""
        if snapshot_id not in self._tasks:
            self.errors.pop(snapshot_id, None)
            task = asyncio.get_running_loop().create_task(self._store(region, snapshot_id, orders, run))
            self._tasks[snapshot_id] = task
            task.add_done_callback(lambda _: self._ended(snapshot_id))

    def under_way(self, snapshot_id: str) -> bool:
        """Whether somebody waits for it and it is not done."""
        return snapshot_id in self._tasks

    def stop(self) -> None:
        """Let go of everything."""
        for task in list(self._tasks.values()):
            task.cancel()

    def hear(self, news: News) -> None:
        """A word from any archiver."""
        if news.what == "progress":
            self.done_bytes[news.snapshot_id] = (news.done_bytes, news.nbytes)
        elif news.what == "failed" and news.snapshot_id:
            self.errors[news.snapshot_id] = news
        self.tell()

    def tell(self) -> None:
        """Wake whoever waits for news."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _store(self, region: str, snapshot_id: str, orders: Orders, run: Run) -> None:
        for other in self.running:
            if other.handles(region, snapshot_id):
                hasten(other.pid)  # it has begun: sooner done than begun anew
                while other in self.running and snapshot_id in self._tasks:
                    await self.changed.wait()
                return
        key = (region, job_of(snapshot_id))
        self.now.add(key)
        try:
            code, error = await run(region, orders, True)
            if code and snapshot_id not in self.errors:
                self.errors[snapshot_id] = News("failed", snapshot_id, error=error or f"it ended with {code}")
        finally:
            self.now.discard(key)

    def _ended(self, snapshot_id: str) -> None:
        self._tasks.pop(snapshot_id, None)
        self.done_bytes.pop(snapshot_id, None)
        self.tell()


def leaves_region(record: JobRecord) -> bool:
    """It was cut, and goes on in another region: what it is cut into is waited for there."""
    if record.stage is not Stage.RELEASING or record.snapshot is None or record.next is None:
        return False
    return record.next.region != record.snapshot.region


def reason_of(record: JobRecord) -> str:
    """Why its newest snapshot was taken."""
    move = record.move or (record.moves[-1] if record.moves else None)
    return move.kind if move is not None else ""
