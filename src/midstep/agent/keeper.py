"""A keeper brings one job on this node to what is wanted of it, a bounded move at a time, and tells the truth
about it.

It looks at levels, never at edges: whenever something may have changed it compares the record, the machine
and the newest assignment, and makes the move that `plan` names. A move is finished before the next one is
chosen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from midstep.agent.drivers import launch
from midstep.agent.errors import StepFailed
from midstep.agent.journal import JobEntry
from midstep.agent.plan import Live, Move, aim_of, next_move
from midstep.agent.recover import recover
from midstep.agent.stalls import stalls_of
from midstep.agent.steps.base import Job, Means, failure_of
from midstep.agent.steps.change import change
from midstep.agent.steps.dump import dump
from midstep.agent.steps.end import end, remove_everything
from midstep.agent.steps.hold import adopt, hold
from midstep.agent.steps.run import resume, start
from midstep.agent.watch import Watch
from midstep.model.phase import Failure, Fault, Goal, JobOnNode, Phase, Stall
from midstep.proxy.handle import ProxyHandle
from midstep.wire.agent import Assignment

RETRY_S = 5.0  # an end that failed is the one thing that is tried again without being asked
STALL_POLL_S = 2.0
_log = logging.getLogger(__name__)


class Keeper:
    """One job on this node. ``changed`` is called whenever its report may have changed."""

    def __init__(
        self, means: Means, job_id: str, entry: JobEntry | None, changed: Callable[[], None]
    ) -> None:
        self.job_id = job_id
        self.wanted: Assignment | None = None
        self.job: Job | None = Job(means, entry) if entry is not None else None
        self.stall_s = 30.0
        self.ready = asyncio.Event()  # what it reports is true
        self.flush_logs: Callable[[], Awaitable[None]] | None = None
        self.drop_logs: Callable[[], None] = lambda: None
        self._means = means
        self._changed = changed
        self._wake = asyncio.Event()
        self._refused: Failure | None = None
        self._stalls: tuple[Stall, ...] = ()
        self._watch = Watch(self._wake.set)
        self._followed: ProxyHandle | None = None
        self._tasks: set[asyncio.Task[bool]] = set()

    def want(self, wanted: Assignment | None) -> None:
        """The newest assignment; None: the controller names this job no more."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._refused = None
            self._wake.set()

    async def run(self) -> None:
        """Until the job is forgotten."""
        polling = asyncio.create_task(self._poll_stalls())
        try:
            await self._recover()
            while True:
                try:
                    if not await self._turn():
                        return
                except Exception:  # the record cannot be written (a full disk): nothing is done without it
                    _log.exception("job %s: nothing can be done now; trying again", self.job_id)
                    await asyncio.sleep(RETRY_S)
                self._changed()
        finally:
            polling.cancel()
            self._watch.follow(())

    async def _recover(self) -> None:
        while self.job is not None and not self.ready.is_set():
            try:
                await recover(self.job)
                break
            except Exception:
                _log.exception("job %s: not recovered; trying again", self.job_id)
                await asyncio.sleep(RETRY_S)
        self.ready.set()

    async def _turn(self) -> bool:
        """Look, and make one move or wait for news; False: the job is forgotten."""
        self._wake.clear()
        self._observe()
        move = Move.NOTHING if self._refused else next_move(self._entry, self._live(), self.wanted)
        if move is Move.FORGET:
            self._means.journal.forget(self.job_id)
            return False
        if move is Move.NOTHING:
            await self._rest()
        else:
            await self._make(move)
        return True

    def report(self, ended: Callable[[int], bool]) -> JobOnNode | None:
        """What there is to say; ``ended`` tells whether a rank's exit may be said yet (its log comes
        first)."""
        entry = self._entry if self.ready.is_set() else None
        if self._refused is not None and self.wanted is not None:
            return JobOnNode(self.job_id, self.wanted.epoch, Phase.FAILED, failure=self._refused)
        if entry is None:
            return None
        assert self.job is not None
        return JobOnNode(
            self.job_id,
            entry.epoch,
            entry.phase,
            proxy_port=self.job.proxy_port,
            ranks=tuple(self.job.rank_status(rank, ended(rank)) for rank in entry.ranks),
            failure=entry.failure,
            steps=tuple(self.job.steps) or entry.steps,
            stalls=self._stalls if entry.phase is Phase.RUNNING else (),
            store=entry.store if entry.phase is Phase.DUMPED else {},
            nbytes=entry.nbytes,
        )

    @property
    def _entry(self) -> JobEntry | None:
        return self.job.entry if self.job is not None else None

    def _live(self) -> Live:
        if self.job is None:
            return Live()
        alive = frozenset(p.rank for p in self.job.entry.processes.values() if launch.alive(p))
        folder = self._means.journal.folder(self.job_id)
        return Live(alive, self.job.proxy_lives, files=any(folder.glob("home-*")))

    async def _rest(self) -> None:
        failed_end = self._entry is not None and self._entry.phase is Phase.FAILED
        again = failed_end and self.wanted is not None and self.wanted.goal is Goal.GONE
        try:
            await asyncio.wait_for(self._wake.wait(), RETRY_S if again else None)
        except TimeoutError:
            assert self.job is not None
            self.job.save(tried=None)

    async def _make(self, move: Move) -> None:
        wanted = self.wanted
        if move is Move.REFUSE:
            words = "this node has nothing of the job under this epoch"
            self._refused = Failure("reconnect", words, Fault.NODE, intact=False)
            return
        assert wanted is not None
        job = self._job_for(move, wanted)
        job.steps.clear()
        try:
            await self._perform(move, job, wanted)
        except StepFailed as error:
            self._fail(job, wanted, error.failure)
        except Exception as error:
            _log.exception("job %s: %s failed", self.job_id, move.name)
            self._fail(job, wanted, failure_of(wanted.goal.value, error, 0.0, intact=False))

    def _job_for(self, move: Move, wanted: Assignment) -> Job:
        if self.job is None or move is Move.HOLD:
            entry = JobEntry(
                self.job_id, wanted.epoch, Phase.HOLDING, wanted.spec, wanted.place, files_epoch=wanted.epoch
            )
            self.job = Job(self._means, entry)
        self.job.on_save = self._changed
        self.job.flush_logs = self.flush_logs
        return self.job

    async def _perform(self, move: Move, job: Job, wanted: Assignment) -> None:
        match move:
            case Move.HOLD:
                await hold(job, wanted)
            case Move.ADOPT:
                await adopt(job, wanted)
            case Move.CHANGE:
                await change(job, wanted)
            case Move.CLEAR:
                job.save(phase=Phase.ENDING)
                self.drop_logs()
                await remove_everything(job)
                job.save(processes={}, exits={}, frozen={}, cut=None)
            case Move.START:
                await start(job, wanted)
            case Move.RESUME:
                await resume(job)
            case Move.DUMP:
                await dump(job, wanted)
            case Move.END:
                job.save(epoch=wanted.epoch)
                await end(job, wanted.collect)
            case Move.LOSE:
                job.save(phase=Phase.PROXY_LOST)
            case Move.NOTHING | Move.FORGET | Move.REFUSE:
                raise AssertionError(move)
        self._follow_proxy(job)

    def _fail(self, job: Job, wanted: Assignment, failure: Failure) -> None:
        _log.warning("job %s epoch %d: %s", self.job_id, wanted.epoch, failure)
        lost = wanted.goal is Goal.DUMP and failure.intact and not job.proxy_lives
        phase = Phase.PROXY_LOST if lost else Phase.FAILED
        job.save(phase=phase, failure=failure, tried=aim_of(wanted), steps=tuple(job.steps))

    def _follow_proxy(self, job: Job) -> None:
        if job.proxy is not None and job.proxy is not self._followed:
            self._followed = job.proxy
            task = asyncio.create_task(job.proxy.closed.wait())
            task.add_done_callback(lambda done: self._tasks.discard(done))
            task.add_done_callback(lambda _: self._wake.set())
            self._tasks.add(task)

    def _observe(self) -> None:
        """Ranks that have ended, and a proxy that has."""
        job = self.job
        if job is None or job.entry.phase is Phase.GONE:
            return
        if job.entry.phase is Phase.DUMPED and self._means.criu is not None:
            return  # what is dumped is in the vault, whatever becomes of the processes
        gone = [p for p in job.entry.processes.values() if not launch.alive(p)]
        if gone:
            job.take_exits(gone)
        if job.entry.phase in (Phase.RUNNING, Phase.HELD) and not job.proxy_lives:
            job.save(phase=Phase.PROXY_LOST)
        self._watch.follow(job.entry.processes.values())

    async def _poll_stalls(self) -> None:
        while True:
            await asyncio.sleep(STALL_POLL_S)
            job, found = self.job, ()
            if (
                job is not None
                and job.proxy is not None
                and job.proxy_lives
                and job.entry.phase is Phase.RUNNING
            ):
                try:
                    found = stalls_of(await job.proxy.status(), self.stall_s)
                except Exception as error:  # it may end at any instant; that is noticed elsewhere
                    _log.debug("job %s: no status of its proxy: %s", self.job_id, error)
            if found != self._stalls:
                self._stalls = found
                self._changed()
