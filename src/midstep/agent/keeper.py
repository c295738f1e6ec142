"""A keeper brings one job on this node to what is wanted of it, a bounded move at a time, and tells the truth
about it.

It looks at levels, never at edges: whenever something may have changed it compares the record, the machine
and the newest assignment, and makes the move that `plan` names. A move is finished before the next one is
chosen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from midstep.agent.drivers import launch
from midstep.agent.errors import StepFailed
from midstep.agent.journal import JobEntry
from midstep.agent.plan import Live, Move, aim_of, next_move
from midstep.agent.recover import recover
from midstep.agent.stalls import stalls_of
from midstep.agent.steps.base import Job, Means, failure_of
from midstep.agent.steps.change import change
from midstep.agent.steps.dump import drop_made, dump, store_part
from midstep.agent.steps.end import end, remove_everything
from midstep.agent.steps.fence import fence
from midstep.agent.steps.hold import adopt, hold
from midstep.agent.steps.run import resume, start
from midstep.agent.watch import Watch
from midstep.model.phase import Failure, Fault, Goal, JobOnNode, Phase, Stall
from midstep.model.usage import NodeUsage
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
        self._fenced = False
        self.measure_s = 0.0  # how often `on_usage` is to hear of it; 0: never
        self.on_usage: Callable[[NodeUsage], None] = lambda usage: None
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
        self._tasks: set[asyncio.Task[object]] = set()

    def want(self, wanted: Assignment | None) -> None:
        """The newest assignment; None: the controller names this job no more."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._refused = None
            self._wake.set()

    def fence(self, fenced: bool) -> None:
        """Whether the controller has been lost for so long that nothing may run."""
        if fenced != self._fenced:
            self._fenced = fenced
            self._wake.set()

    async def run(self) -> None:
        """Until the job is forgotten."""
        polling = [asyncio.create_task(self._poll_stalls()), asyncio.create_task(self._measure())]
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
            for task in polling:
                task.cancel()
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
            target=entry.target if entry.phase is Phase.DUMPED else None,
            stored=entry.stored,
            not_stored=entry.not_stored,
            doing=self.job.doing,
        )

    @property
    def _entry(self) -> JobEntry | None:
        return self.job.entry if self.job is not None else None

    def _live(self) -> Live:
        if self.job is None:
            return Live(fenced=self._fenced)
        alive = frozenset(p.rank for p in self.job.entry.processes.values() if launch.alive(p))
        folder = self._means.journal.folder(self.job_id)
        files = any(folder.glob("home-*"))
        return Live(alive, self.job.proxy_lives, files=files, fenced=self._fenced)

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
            words = "this node has not got the job's ranks: they were killed from outside, or with the node"
            self._refused = Failure("reconnect", words, Fault.NODE, intact=False)
            return
        if move is Move.FENCE:
            assert self.job is not None
            drop_made(self.job)
            await fence(self.job)
            return
        assert wanted is not None
        job = self._job_for(move, wanted)
        job.steps.clear()
        if move is not Move.RESUME:
            drop_made(job)
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
                if job.made is not None:
                    self._go_on_beside(store_part(job))
            case Move.DUMP:
                await dump(job, wanted)
            case Move.END:
                job.save(epoch=wanted.epoch)
                await end(job, wanted.collect)
            case Move.LOSE:
                job.save(phase=Phase.PROXY_LOST)
            case Move.NOTHING | Move.FORGET | Move.REFUSE | Move.FENCE:
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
            job.proxy.on_usage = self._heard
            self._go_on_beside(job.proxy.closed.wait())

    def _go_on_beside(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
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
            proxy, found = self._running_proxy(), ()
            if proxy is not None:
                try:
                    found = stalls_of(await proxy.status(), self.stall_s)
                except Exception as error:  # it may end at any instant; that is noticed elsewhere
                    _log.debug("job %s: no status of its proxy: %s", self.job_id, error)
            if found != self._stalls:
                self._stalls = found
                self._changed()

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(self.measure_s or STALL_POLL_S)
            proxy = self._running_proxy()
            if proxy is not None and self.measure_s:
                try:
                    usage = await proxy.measure()
                    if proxy is self._running_proxy():  # else its last words were said meanwhile
                        self._heard(usage)
                except Exception as error:
                    _log.debug("job %s: not measured: %s", self.job_id, error)

    def _heard(self, usage: NodeUsage) -> None:
        if self.measure_s:
            self.on_usage(usage)

    def _running_proxy(self) -> ProxyHandle | None:
        """The job's proxy while its ranks run."""
        job = self.job
        if job is None or not job.proxy_lives or job.entry.phase is not Phase.RUNNING:
            return None
        return job.proxy
