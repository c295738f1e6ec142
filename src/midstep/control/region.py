"""A region controller: the parts of this package put together over one state folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from midstep.control.between.passports import Border
from midstep.control.between.relay import Relay
from midstep.control.between.told import Teller
from midstep.control.errors import StateError
from midstep.control.fleet import Fleet
from midstep.control.history import History
from midstep.control.journal import Journal
from midstep.control.logs import Logs
from midstep.control.meters import Meters
from midstep.control.scheduling.accounts import Accounts
from midstep.control.scheduling.notebook import Notebook
from midstep.control.scheduling.planner import Planner
from midstep.control.scheduling.quotas import Quotas
from midstep.control.service import Service
from midstep.control.sessions import Sessions
from midstep.control.tasks import end
from midstep.control.vaults.archiving import Archiving
from midstep.control.vaults.blobs import Blobs
from midstep.control.vaults.shipping import Shipping
from midstep.control.vaults.snapshots import Vaults
from midstep.env import Clock, Ids, RealClock, real_ids
from midstep.model.job import CheckpointRule
from midstep.policy.intervals import FLEET
from midstep.wire.agent import Welcome

MEASURE_S = 2.0  # how often agents say what jobs do with their devices
REST_S = 120.0  # that a job which was started, moved or resized is left alone by the scheduler


@dataclass(frozen=True, slots=True)
class Settings:
    """``regions``: name -> the folder of its vault. ``heartbeat_s``, ``stall_s``: what agents are told to
    keep. ``lost_node_s``: after so long without a word from a node its jobs go on elsewhere; its agent stops
    them after half of it. ``archiver``: its command; none: nothing is archived. ``above``: the URL of the
    global controller, if there is one."""

    state_dir: Path
    fleet: str
    token: str
    regions: Mapping[str, Path]
    heartbeat_s: float = 2.0
    stall_s: float = 30.0
    checkpoints: CheckpointRule = FLEET
    lost_node_s: float = 60.0
    rest_s: float = REST_S
    archiver: tuple[str, ...] = ()
    above: str = ""


@dataclass(slots=True)
class Region:
    """Everything that the HTTP interface needs. ``open`` it, then `run` it inside an event loop."""

    settings: Settings
    clock: Clock
    ids: Ids
    journal: Journal
    fleet: Fleet
    vaults: Vaults
    logs: Logs
    blobs: Blobs
    service: Service
    history: History
    sessions: Sessions
    meters: Meters
    archiving: Archiving
    shipping: Shipping
    accounts: Accounts
    quotas: Quotas
    notebook: Notebook
    planner: Planner
    teller: Teller
    border: Border
    relay: Relay | None = None
    lock: int = -1
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @classmethod
    def open(cls, settings: Settings, clock: Clock | None = None, ids: Ids | None = None) -> Self:
        """Take the state folder. Raises StateError: it cannot be used, or another controller uses it."""
        clock, ids = clock or RealClock(), ids or real_ids()
        with taken(settings.state_dir) as lock:
            journal = Journal(settings.state_dir / "midstep.db")
            vaults = Vaults(settings.regions, clock)
            logs, blobs = Logs(settings.state_dir), Blobs(settings.state_dir, ids)
        fleet = Fleet(journal, vaults.regions)
        service = Service(journal, fleet, vaults, clock, settings.checkpoints, settings.lost_node_s)
        history = History(journal, service)
        accounts, notebook, quotas = Accounts(journal), Notebook(journal), Quotas(journal)
        planner = Planner(service, fleet, notebook, quotas, settings.rest_s)
        service.on_change.append(lambda before, after: accounts.changed(before, after, service.now_s()))
        fence_s = settings.lost_node_s / 2
        welcome = Welcome(settings.fleet, settings.heartbeat_s, settings.stall_s, fence_s, MEASURE_S)
        meters = Meters(journal, service, accounts)
        planner.measured, planner.has_others = meters.sizes, bool(settings.above)
        owner = f"{settings.fleet} {settings.state_dir}"
        archiving = Archiving(service, vaults, clock, settings.archiver, owner, settings.checkpoints)
        sessions = Sessions(service, fleet, logs, history, clock, settings.token, welcome)
        sessions.on_usage = meters.take
        return cls(
            settings,
            clock,
            ids,
            journal,
            fleet,
            vaults,
            logs,
            blobs,
            service,
            history,
            sessions,
            meters,
            archiving,
            Shipping(vaults, archiving),
            accounts,
            quotas,
            notebook,
            planner,
            Teller(service, fleet, planner, ids.token()),
            Border(service, fleet, journal, blobs, accounts, meters),
            Relay(settings.above, settings.token) if settings.above else None,
            lock,
        )

    def start(self) -> None:
        """Recover what was under way, then serve events."""
        self.service.recover()
        self.tasks = [asyncio.create_task(self.service.run()), asyncio.create_task(self.sessions.watch())]
        self.tasks.append(asyncio.create_task(self.archiving.run()))

    async def stop(self) -> None:
        """End cleanly. Jobs go on."""
        await end(self.tasks)
        if self.relay is not None:
            await self.relay.close()
        self.meters.close()
        self.journal.close()
        os.close(self.lock)


@contextlib.contextmanager
def taken(state_dir: Path) -> Generator[int]:
    """Take a state folder for as long as the lock, a descriptor, is open; what is opened of it within the
    block may fail, which gives it back. Raises StateError."""
    lock = _locked(state_dir)
    try:
        yield lock
    except OSError as error:
        os.close(lock)
        raise StateError(f"cannot use {error.filename}: {error.strerror}") from error


def _locked(state_dir: Path) -> int:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"cannot use the state folder {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StateError(
            f"another controller runs on {state_dir}; stop it first, or choose another folder"
        ) from None
    return lock
