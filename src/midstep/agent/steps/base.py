"""What the steps share: the node's means, one job's live parts, and the frame that bounds, times and names
every step."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from midstep.agent.carrier import Carrier
from midstep.agent.config import AgentConfig
from midstep.agent.deadlines import deadline_s
from midstep.agent.drivers import errors as drivers
from midstep.agent.drivers import launch
from midstep.agent.drivers.cell import Home
from midstep.agent.drivers.criu import Criu
from midstep.agent.drivers.cuda import CudaDriver
from midstep.agent.drivers.launch import RankProcess
from midstep.agent.errors import StepFailed, TransferError
from midstep.agent.faults import pass_point
from midstep.agent.journal import JobEntry, Journal
from midstep.agent.logs import last_lines
from midstep.agent.nursery import Nursery
from midstep.agent.staging import Made, Staging
from midstep.agent.transfer import FULL, Fetcher
from midstep.model.job import RankPlace
from midstep.model.phase import Doing, Failure, Fault, Phase, RankStatus, StepTiming
from midstep.proxy.errors import ProxyError
from midstep.proxy.handle import ProxyHandle
from midstep.vault.errors import (
    BackendUnreachable,
    Busy,
    Damaged,
    SnapshotIncomplete,
    SnapshotMissing,
    VaultError,
)
from midstep.vault.snapshots import Snapshots

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Means:
    """What a node has for all its jobs."""

    config: AgentConfig
    journal: Journal
    vault: Snapshots
    fetcher: Fetcher
    nursery: Nursery
    criu: Criu | None
    carrier: Carrier
    staging: Staging = field(default_factory=Staging)
    cuda: CudaDriver = field(default_factory=lambda: CudaDriver(deadline_s("cuda-checkpoint")))


@dataclass(slots=True)
class Job:
    """One job on this node: its record, and what lives and dies with the agent."""

    means: Means
    entry: JobEntry
    proxy: ProxyHandle | None = None
    proxy_port: int = 0
    made: Made | None = None  # this node's part of a checkpoint, in memory
    steps: list[StepTiming] = field(default_factory=list[StepTiming])
    doing: Doing | None = None
    on_save: Callable[[], None] | None = None  # what is reported may have changed
    flush_logs: Callable[[], Awaitable[None]] | None = (
        None  # before files go: what was printed reaches the controller
    )

    def save(self, **changes: Any) -> JobEntry:
        """Change the record; a kill of the agent does not undo it."""
        self.entry = self.means.journal.save(replace(self.entry, **changes))
        if self.on_save is not None:
            self.on_save()
        return self.entry

    def home(self, number: int) -> Home:
        """One of the job's homes here."""
        return Home(self.means.journal.home(self.entry.job_id, number))

    def home_of(self, rank: int) -> Home:
        """The home of a rank."""
        return self.home(self.entry.home_of(rank))

    def log(self, rank: int) -> Path:
        """What a rank has printed."""
        return self.home_of(rank).log(rank)

    def rank_status(self, rank: int, ended: bool) -> RankStatus:
        """A rank as reported; its exit only when it may be said (``ended``)."""
        if rank not in self.entry.exits or not ended:
            return RankStatus(rank)
        return RankStatus(rank, self.entry.exits[rank], last_lines(self.log(rank)))

    def take_exits(self, gone: Iterable[RankProcess]) -> None:
        """Record how ranks ended. One whose PID 1 is gone without having written a status was lost, not
        ended: killed from outside, or with its node."""
        codes = {p.rank: launch.exit_status(self.home_of(p.rank), p.rank) for p in gone}
        exits = {rank: code for rank, code in codes.items() if code is not None}
        left = {rank: p for rank, p in self.entry.processes.items() if rank not in codes}
        lost = sorted(set(codes) - set(exits))
        self.save(processes=left, exits={**self.entry.exits, **exits})
        if lost and self.entry.phase in _WITH_RANKS:
            words = f"the processes of ranks {', '.join(map(str, lost))} were killed from outside"
            failure = Failure("run", f"{words}, or with the node", Fault.NODE, intact=False)
            self.save(phase=Phase.FAILED, failure=failure, tried=None, steps=())

    @property
    def proxy_lives(self) -> bool:
        """Whether operations are carried."""
        return self.proxy is not None and not self.proxy.closed.is_set()


@dataclass(slots=True)
class Step:
    """One step under way. ``nbytes`` is filled in by its body."""

    name: str
    limit_s: float
    nbytes: int = 0
    known_bytes: int = 0


@contextlib.asynccontextmanager
async def step(job: Job, goal: str, name: str, *, intact: bool, nbytes: int = 0) -> AsyncGenerator[Step]:
    """Frame one step: its deadline, its fault points, its timing, and its failure in words.

    ``intact``: what ran before will run on after the rollback if this step fails. Bodies give ``limit_s`` to
    whatever can bound itself; what cannot is cut off a little later.
    """
    pass_point(f"{goal}.{name}:before")
    current = Step(name, deadline_s(name, nbytes))
    begun_s = time.monotonic()
    try:
        async with asyncio.timeout(current.limit_s * 1.5 + 5):
            yield current
    except StepFailed:
        raise
    except Exception as error:
        raise StepFailed(failure_of(name, error, current.limit_s, intact)) from error
    finally:
        job.doing = None
    job.steps.append(StepTiming(name, time.monotonic() - begun_s, current.nbytes, current.known_bytes))
    if job.on_save is not None:  # so that it shows before the move has ended, if that takes longer
        asyncio.get_running_loop().call_later(_TELL_S, job.on_save)
    pass_point(f"{goal}.{name}:after")


def cpus_of(place: RankPlace) -> tuple[int, ...]:
    """The cores that a rank may use; all of the node's when its placement names none."""
    return place.cpus or tuple(sorted(os.sched_getaffinity(0)))


async def blocking(work: Callable[[], T]) -> T:
    """Run driver calls and file work beside the event loop. A cancelled wait still waits for the thread: what
    follows (a rollback) must not run beside it."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise


def failure_of(name: str, error: Exception, limit_s: float, intact: bool) -> Failure:
    """An error as the controller and the user hear it: whose fault, and what to do."""
    match error:
        case drivers.CommandNotFound():
            return Failure(
                name, str(error), Fault.USER, intact, "check the command, and that the work directory has it"
            )
        case drivers.Refused(refusal=refusal):
            fault = _BLAME[refusal.blame]
            hint = refusal.detail if refusal.blame is drivers.Blame.OURS else ""
            return Failure(name, refusal.message, fault, intact, hint)
        case drivers.RankGone():
            return Failure(name, str(error), Fault.TRANSIENT, intact, "the rank's exit is reported by itself")
        case drivers.TooSlow() | TimeoutError():
            message = str(error) or f"not done within {limit_s:g} s"
            return Failure(
                name, message, Fault.TRANSIENT, intact, "it is tried again; a loaded node is the usual cause"
            )
        case ConnectionResetError() | BrokenPipeError():
            return Failure(name, f"the proxy ended: {error}", Fault.TRANSIENT, intact, "it is tried again")
        case ProxyError():
            return Failure(name, str(error), Fault.TRANSIENT, intact, "it is tried again under new proxies")
        case drivers.Broken():
            return Failure(name, str(error), Fault.NODE, False, "the job goes back to its last snapshot")
        case OSError(errno=code) if code in FULL:
            where = f" ({error.filename})" if error.filename else ""
            return Failure(
                name,
                f"the disk is full{where}",
                Fault.NODE,
                intact,
                "free space in the node's or the vault's folder",
            )
        case TransferError():
            return Failure(name, str(error), Fault.TRANSIENT, intact, "it is tried again")
        case BackendUnreachable() | Busy():
            return Failure(name, str(error), Fault.TRANSIENT, intact, "it is tried again")
        case Damaged() | SnapshotIncomplete() | SnapshotMissing():
            return Failure(name, str(error), Fault.SNAPSHOT, intact)
        case drivers.DriverError() | VaultError() | OSError():
            return Failure(name, str(error), Fault.NODE, intact)
        case _:
            return Failure(
                name,
                f"{type(error).__name__}: {error}",
                Fault.NODE,
                intact,
                "this is a fault of Midstep: report it",
            )


_TELL_S = 0.05  # reports of steps that follow each other at once would only delay the one that matters

# Where ranks are expected to be there; elsewhere they are being removed, or not all there yet.
_WITH_RANKS = (Phase.HELD, Phase.STARTING, Phase.RUNNING, Phase.DUMPING, Phase.PROXY_LOST)

_BLAME = {
    drivers.Blame.JOB: Fault.JOB_STATE,
    drivers.Blame.NODE: Fault.NODE,
    drivers.Blame.OURS: Fault.NODE,
}
