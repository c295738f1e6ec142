"""A node: a keeper for each job, the logs, and the report on all of it. Knows nothing of sockets."""

from __future__ import annotations

import asyncio
import logging
import time

from midstep.agent.carrier import Carrier
from midstep.agent.config import AgentConfig
from midstep.agent.contact import Contact
from midstep.agent.copies import Copies
from midstep.agent.drivers.criu import Criu
from midstep.agent.journal import JobEntry, Journal
from midstep.agent.keeper import Keeper
from midstep.agent.logs import LogShipper
from midstep.agent.nursery import Nursery
from midstep.agent.steps.base import Means
from midstep.agent.transfer import Fetcher
from midstep.model.phase import Phase
from midstep.model.usage import NodeUsage
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import Assignment, Desired, Report, Welcome

_LEAVING = (Phase.ENDING, Phase.GONE)
_FLUSH_S = 5.0
_RECOVERY_S = 60.0  # then the other jobs of the node are not kept waiting any longer
_FLUSH_POLL_S = 0.01
_log = logging.getLogger(__name__)


class Node:
    """The session gives it what is wanted and takes from it what there is; ``changed`` is set when that is
    news."""

    def __init__(self, config: AgentConfig, nursery: Nursery) -> None:
        journal = Journal(config.state_dir)
        fetcher = Fetcher(config.controller, config.token, config.region, config.state_dir / "scratch")
        carrier = Carrier(config.controller, config.token, config.region)
        criu = Criu(config.criu) if config.criu is not None else None
        self._means = Means(config, journal, Snapshots(config.vault_dir), fetcher, nursery, criu, carrier)
        self.logs = LogShipper()
        self.contact = Contact(config.state_dir)
        self.changed = asyncio.Event()
        self._copies = Copies(carrier, self._means.vault, self.changed.set)
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._desired: dict[str, Assignment] | None = None  # None: nothing heard in this session yet
        self._stall_s = 30.0
        self._measure_s = 0.0
        self._usage: dict[tuple[str, int, int], NodeUsage] = {}  # not sent yet: the newest of each source

    async def keep_fence(self) -> None:
        """Stop all ranks when the controller has been lost for too long; they go on when it wants them to.
        Until cancelled."""
        while True:
            self._fence()
            await asyncio.sleep(self.contact.poll_s)

    def _fence(self) -> None:
        lost = self.contact.lost
        for keeper in self._keepers.values():
            keeper.fence(lost)

    async def start(self) -> None:
        """Take up the jobs of the journal; returns when what `report` says is true."""
        keepers = [self._keep(entry.job_id, entry) for entry in self._means.journal.load()]
        self._fence()
        self._means.journal.trash.empty_soon()
        if keepers:
            waits = [asyncio.create_task(keeper.ready.wait()) for keeper in keepers]
            await asyncio.wait(waits, timeout=_RECOVERY_S)

    def welcome(self, welcome: Welcome) -> None:
        """A session begins: the controller says again what it wants and which log bytes it has."""
        self._desired = None
        self._stall_s, self._measure_s = welcome.stall_s, welcome.measure_s
        self.contact.keep_to(welcome.fence_s)
        self.logs.reset()
        for keeper in self._keepers.values():
            keeper.stall_s, keeper.measure_s = welcome.stall_s, welcome.measure_s

    def farewell(self) -> None:
        """The session is over: nobody takes logs."""
        self._desired = None
        self.logs.reset()

    def take(self, desired: Desired) -> None:
        """Everything that the controller wants."""
        self._desired = {a.job_id: a for a in desired.assignments}
        for assignment in desired.assignments:
            keeper = self._keepers.get(assignment.job_id) or self._keep(assignment.job_id, None)
            keeper.want(assignment)
        for job_id in set(self._keepers) - set(self._desired):
            self._keepers[job_id].want(None)
        self._copies.want(desired.copies)
        self.changed.set()

    def report(self) -> Report:
        """Everything that there is."""
        reports = [
            keeper.report(lambda rank, k=keeper: self._may_say_ended(k, rank)) for keeper in self._sorted()
        ]
        return Report(tuple(r for r in reports if r is not None), self._copies.report())

    def usage(self) -> tuple[NodeUsage, ...]:
        """What was measured and not sent yet; say ``sent`` afterwards."""
        return tuple(self._usage.values())

    def sent(self, usage: tuple[NodeUsage, ...]) -> None:
        """The controller has these."""
        self._usage = {key: one for key, one in self._usage.items() if one not in usage}

    def anchor_logs(self) -> None:
        """Have the logs shipped of all jobs whose files are in place."""
        for job_id, wanted in (self._desired or {}).items():
            job = self._keepers[job_id].job if job_id in self._keepers else None
            if job is None or job.entry.epoch != wanted.epoch or job.entry.phase in _LEAVING:
                continue
            if job.entry.phase is Phase.HOLDING and not job.entry.adopted:
                self.logs.drop(job_id)  # the files are not in place yet
                continue
            self.logs.keep(job_id, job.entry.ranks)
            for rank in job.entry.ranks:
                floor = job.entry.log_floors.get(rank)
                has = wanted.log_bytes.get(rank, 0)
                self.logs.anchor(job_id, job.entry.files_epoch, rank, job.log(rank), has, floor)

    def _may_say_ended(self, keeper: Keeper, rank: int) -> bool:
        """A rank's exit is said after the last byte of its log, if somebody takes the log."""
        if self.logs.shipped(keeper.job_id, rank):
            return True
        return self._desired is not None and keeper.job_id not in self._desired

    def _sorted(self) -> list[Keeper]:
        return [self._keepers[job_id] for job_id in sorted(self._keepers)]

    def _keep(self, job_id: str, entry: JobEntry | None) -> Keeper:
        keeper = Keeper(self._means, job_id, entry, self.changed.set)
        keeper.stall_s, keeper.measure_s, keeper.on_usage = self._stall_s, self._measure_s, self._measured
        keeper.flush_logs = lambda: self._flush(job_id)
        keeper.drop_logs = lambda: self.logs.drop(job_id)
        self._keepers[job_id] = keeper
        task = asyncio.create_task(keeper.run(), name=f"keeper-{job_id}")
        task.add_done_callback(lambda done: self._dismiss(job_id, keeper, done))
        self._tasks[job_id] = task
        return keeper

    def _measured(self, usage: NodeUsage) -> None:
        self._usage[usage.job_id, usage.epoch, usage.source] = usage
        if usage.last:
            self.changed.set()

    async def _flush(self, job_id: str) -> None:
        """Wait a little for a job's logs to be shipped, before their files go; look no more after."""
        ranks = [r for r in range(self._world_size(job_id)) if self.logs.anchored(job_id, r)]
        end_s = time.monotonic() + _FLUSH_S
        while any(self.logs.anchored(job_id, r) and not self.logs.shipped(job_id, r) for r in ranks):
            if time.monotonic() > end_s:
                _log.warning("job %s: its log is removed before all of it was sent", job_id)
                break
            self.changed.set()  # the session looks at the logs
            await asyncio.sleep(_FLUSH_POLL_S)
        self.logs.drop(job_id)

    def _world_size(self, job_id: str) -> int:
        job = self._keepers[job_id].job
        return job.entry.spec.world_size if job is not None else 0

    def _dismiss(self, job_id: str, keeper: Keeper, done: asyncio.Task[None]) -> None:
        if done.cancelled():
            return
        if error := done.exception():
            _log.error("the keeper of job %s ended, which is a fault of Midstep", job_id, exc_info=error)
            return
        if self._keepers.get(job_id) is not keeper:
            return
        del self._keepers[job_id], self._tasks[job_id]
        self.logs.drop(job_id)
        self.changed.set()
        wanted = (self._desired or {}).get(job_id)
        if wanted is not None:  # named again while it was being forgotten
            self._keep(job_id, None).want(wanted)
