"""The global controller: the parts of this package put together over one state folder."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from midstep.control.region import taken
from midstep.control.tasks import end
from midstep.control.vaults.blobs import Blobs
from midstep.env import Clock, Ids, RealClock, real_ids
from midstep.federation.ahead import Copies
from midstep.federation.balance import Balance
from midstep.federation.directory import Directory
from midstep.federation.front import Front
from midstep.federation.handovers import Handovers
from midstep.federation.members import Member, Members
from midstep.federation.quotas import Quotas
from midstep.federation.reception import Reception

LOG = logging.getLogger("midstep.federation")
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """``regions``: name -> the URL of its controller. ``patience_s``: that a job waits in its region before
    it is sent to another one."""

    state_dir: Path
    fleet: str
    token: str
    regions: Mapping[str, str]
    version: str = ""
    patience_s: float = PATIENCE_S


@dataclass(slots=True)
class Centre:
    """Everything that the HTTP interface needs. ``open`` it, then `start` it inside an event loop."""

    settings: Settings
    members: Members
    blobs: Blobs
    reception: Reception
    front: Front
    quotas: Quotas
    handovers: Handovers
    balance: Balance
    lock: int = -1
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @classmethod
    def open(cls, settings: Settings, clock: Clock | None = None, ids: Ids | None = None) -> Self:
        """Take the state folder. Raises StateError: it cannot be used, or another one uses it."""
        clock, ids = clock or RealClock(), ids or real_ids()
        with taken(settings.state_dir) as lock:
            blobs = Blobs(settings.state_dir, ids)
        members = Members(
            {name: Member(name, url, settings.token, clock) for name, url in settings.regions.items()}
        )
        directory = Directory(members)
        reception = Reception(members, directory, blobs, ids)
        return cls(
            settings,
            members,
            blobs,
            reception,
            Front(settings.fleet, settings.version, members, directory, reception, clock),
            Quotas(members),
            Handovers(members, directory, Copies(clock)),
            Balance(members, clock, settings.patience_s),
            lock,
        )

    def start(self) -> None:
        """Listen to the regions, and do what is due."""
        self.tasks = [asyncio.create_task(member.listen()) for member in self.members]
        self.tasks.append(asyncio.create_task(self._run()))

    async def stop(self) -> None:
        """End. Regions and jobs go on."""
        self.handovers.stop()
        await end(self.tasks)
        for member in self.members:
            await member.close()
        os.close(self.lock)

    async def _run(self) -> None:
        """After every word from a region. One that hangs must not hold up the others: what is asked of them
        is asked beside this."""
        async with asyncio.TaskGroup() as group:
            acting: asyncio.Task[None] | None = None
            while True:
                await self.members.news.wait()
                self.members.news.clear()
                self.handovers.tend()
                if acting is None or acting.done():
                    acting = group.create_task(self._act())

    async def _act(self) -> None:
        try:
            await self.balance.act()
        except Exception as error:  # a mistake of ours must not stop what is on its way
            LOG.error("sending jobs failed: %s", error, exc_info=error)
