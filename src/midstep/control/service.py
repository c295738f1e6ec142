"""One queue of events -> engine -> journal -> effects. Everything that happens to jobs goes through here, one
at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from midstep.control.errors import NotFound, StateError
from midstep.control.fleet import Fleet
from midstep.control.journal import Journal
from midstep.control.tasks import Tasks
from midstep.control.vaults.checkpoints import Timetable
from midstep.control.vaults.described import describe
from midstep.control.vaults.forking import needed_by_others
from midstep.control.vaults.snapshots import Vaults
from midstep.engine.effects import CommitSnapshot, DeleteSnapshot, Effect, Log
from midstep.engine.errors import EngineError, IllegalMove, Refused
from midstep.engine.events import (
    Arrived,
    CheckpointAsked,
    ControllerRestarted,
    DeadlinePassed,
    Event,
    NodeGone,
    SnapshotCommitted,
    Submitted,
)
from midstep.engine.orders import desired
from midstep.engine.record import JobRecord
from midstep.engine.step import Stepped, step
from midstep.env import Clock
from midstep.model.job import CheckpointRule
from midstep.model.lifecycle import Stage
from midstep.policy.intervals import FLEET

LOG = logging.getLogger("midstep.control")
_TICK_S = 0.5

Changed = Callable[[JobRecord | None, JobRecord], None]


class Service:
    """The jobs. ``on_change`` is called after every persisted change, with the record before and after."""

    def __init__(
        self,
        journal: Journal,
        fleet: Fleet,
        vaults: Vaults,
        clock: Clock,
        checkpoints: CheckpointRule = FLEET,
        lost_node_s: float = 60.0,
    ) -> None:
        self._journal, self._fleet, self._vaults, self._clock = journal, fleet, vaults, clock
        self._queue: asyncio.Queue[tuple[str, Event, asyncio.Future[JobRecord] | None]] = asyncio.Queue()
        self._tasks = Tasks()
        self._plan_due = False
        self._checkpoints, self._lost_node_s = checkpoints, lost_node_s
        # Wall time that does not jump while we run: deadlines are counted in it.
        self._offset_s = clock.now_s() - clock.monotonic_s()
        self.on_change: list[Changed] = []
        self.on_plan: Callable[[], None] = lambda: None  # something that matters to the policy has changed
        self.wake_s: float | None = None  # when to plan again even if nothing does
        self.records: dict[str, JobRecord] = {record.job_id: record for record in journal.records()}

    def now_s(self) -> float:
        """The time that records and history speak of."""
        return self._offset_s + self._clock.monotonic_s()

    def timetable(self, now_s: float) -> Timetable:
        """When running jobs are saved, by what is known now."""
        return Timetable.of(self._checkpoints, self.records.values(), now_s)

    def recover(self) -> None:
        """After a start: nothing is under way, no agent is connected. Call it before `run`."""
        for job_id, record in list(self.records.items()):
            if record.stage is not Stage.OVER or record.leftovers:
                self.take(job_id, ControllerRestarted())
        kept = [record.snapshot for record in self.records.values() if record.snapshot]
        for snapshot in kept:  # of one that was committed just before, nobody knows whether it is on disk
            self._tasks.spawn(self._vaults.flush(snapshot))
        others = [ref for record in self.records.values() for ref in (record.part, record.older) if ref]
        keep = {record.pending for record in self.records.values()}
        keep |= {snapshot.snapshot_id for snapshot in (*kept, *others)}
        keep |= {name for record in self.records.values() for name in record.damaged}
        keep |= {record.storing.snapshot_id for record in self.records.values() if record.storing}
        self._tasks.spawn(self._vaults.sweep({name for name in keep if name}, set(self.records)))

    async def run(self) -> None:
        """Until cancelled."""
        ticker = asyncio.create_task(self._tick())
        try:
            while True:
                await self._next()
        finally:
            ticker.cancel()
            self._tasks.cancel()

    async def ask(self, job_id: str, event: Event) -> JobRecord:
        """Let an event happen and wait for what becomes of it. Raises Refused, NotFound, StateError."""
        answer: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((job_id, event, answer))
        return await answer

    def tell(self, job_id: str, event: Event) -> None:
        """Let an event happen. One that cannot be taken is logged; all that agents and timers say is said
        again."""
        self._queue.put_nowait((job_id, event, None))

    def note(self, job_id: str, log: Log) -> None:
        """A line of history that changes nothing; ``job_id`` '': of no job."""
        record = self.records.get(job_id)
        try:
            if record is None:
                self._journal.note(self.now_s(), log)
            else:
                self._journal.commit(self.now_s(), record, None, [log], synced=False)
        except StateError as error:
            LOG.warning("%s", error)

    def plan_soon(self) -> None:
        """Devices or jobs have changed: look for placements after the events that are queued."""
        self._plan_due = True
        if self._queue.empty():
            self._queue.put_nowait(("", DeadlinePassed(), None))  # wakes the loop

    async def _next(self) -> None:
        job_id, event, answer = await self._queue.get()
        try:
            record = self.take(job_id, event, asked=answer is not None) if job_id else None
            if answer is not None and not answer.done() and record is not None:
                answer.set_result(record)
        except Exception as error:
            if answer is not None and not answer.done():
                answer.set_exception(error)
            if (
                answer is None
                or not isinstance(error, (EngineError, NotFound))
                or isinstance(error, IllegalMove)
            ):
                self._complain(job_id, event, error)
        if self._plan_due and self._queue.empty():
            self._plan_due = False
            self._plan_now()

    def take(self, job_id: str, event: Event, *, asked: bool = False) -> JobRecord:
        """Let an event happen now: only between two events, as planning is. Raises EngineError, NotFound,
        StateError."""
        before = self.records.get(job_id)
        if before is None and not isinstance(event, Submitted | Arrived):
            raise NotFound(f"there is no job {job_id}")
        now_s = self.now_s()
        stepped = step(before, event, now_s)
        logs = [effect for effect in stepped.effects if isinstance(effect, Log)]
        if stepped.changed or logs:
            synced = asked or _is_acted_on(before, stepped)
            news = event if stepped.changed else None
            self._journal.commit(now_s, stepped.record, news, logs, synced=synced)
        self.records[job_id] = stepped.record
        for effect in stepped.effects:
            self._perform(job_id, effect)
        if stepped.changed or logs:
            self._changed(before, stepped.record)
        return stepped.record

    def _changed(self, before: JobRecord | None, after: JobRecord) -> None:
        if before is None or _matters_to_policy(before) != _matters_to_policy(after):
            self._plan_due = True
        for listener in self.on_change:
            listener(before, after)

    def _perform(self, job_id: str, effect: Effect) -> None:
        match effect:
            case CommitSnapshot():
                self._tasks.spawn(self._commit(job_id, effect))
            case DeleteSnapshot(snapshot_id):
                # A job that was started from it removes it when it has no need of it any more.
                if not needed_by_others(self.records.values(), job_id, snapshot_id):
                    self._tasks.spawn(self._vaults.delete(snapshot_id))
            case Log():
                pass  # in the journal already

    async def _commit(self, job_id: str, effect: CommitSnapshot) -> None:
        event = await self._vaults.commit(effect, describe(self.records[job_id]))
        self.tell(job_id, event)
        if isinstance(event, SnapshotCommitted):
            await self._vaults.flush(event.snapshot)

    def _plan_now(self) -> None:
        try:
            self.on_plan()
        except Exception as error:  # a plan that cannot be made must not stop what is under way
            LOG.error("planning failed: %s", error, exc_info=error)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(_TICK_S)
            now_s = self.now_s()
            if self.wake_s is not None and self.wake_s <= now_s:
                self.wake_s = None
                self.plan_soon()
            timetable = self.timetable(now_s)
            for record in list(self.records.values()):
                if record.deadline_s is not None and record.deadline_s <= now_s:
                    self.tell(record.job_id, DeadlinePassed())
                for node in record.unreachable:
                    if now_s - record.lost[node] >= self._lost_node_s and node not in record.given_up:
                        self.tell(record.job_id, NodeGone(node))
                if timetable.due(record, now_s):
                    self.tell(record.job_id, CheckpointAsked(due=True))

    def _complain(self, job_id: str, event: Event, error: Exception) -> None:
        name = type(event).__name__
        if isinstance(error, (Refused, NotFound, StateError)):
            LOG.warning("%s for job %s was not taken: %s", name, job_id, error)
        else:
            LOG.error("%s for job %s: %s", name, job_id, error, exc_info=not isinstance(error, IllegalMove))


def _is_acted_on(before: JobRecord | None, stepped: Stepped) -> bool:
    """Whether nodes or vaults will do something that the record must not forget when power is lost. What
    nodes only report, they report again."""
    removes = any(isinstance(effect, DeleteSnapshot) for effect in stepped.effects)
    return removes or before is None or desired(before) != desired(stepped.record)


def _matters_to_policy(record: JobRecord) -> tuple[object, ...]:
    wish = (record.intent, record.target, record.wanted, record.asked, record.yields)
    return (record.stage, *wish, record.next, record.back, tuple(record.leftovers), record.unreachable)
