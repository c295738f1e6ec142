"""What the global controller may ask of a region's: see `wire/between.py`.

Every method may raise Rejected, NotFound and StateError.
"""

from __future__ import annotations

from pathlib import Path

from midstep.control.desk import Desk
from midstep.control.errors import NotFound, Rejected
from midstep.control.region import Region
from midstep.control.scheduling.decisions import Decision
from midstep.engine.events import Copied, LeaveAsked, NotNeeded, TurnedBack
from midstep.engine.record import JobRecord
from midstep.model.phase import CopyStatus
from midstep.vault.archive.archive import job_of
from midstep.wire.agent import CopyOrder
from midstep.wire.api import EventView, JobView, Problem
from midstep.wire.between import CopiedNews, LeaveRequest, RegionTold

LOG_BYTES = 1 << 20


class Liaison:
    """A region's side of it."""

    def __init__(self, region: Region, desk: Desk) -> None:
        self._region, self._desk, self._service = region, desk, region.service

    def told(self, seen: str) -> RegionTold:
        """What the level above is told."""
        return self._region.teller.told(seen)

    async def leave(self, job_id: str, request: LeaveRequest) -> JobView:
        """Have a job go to another region."""
        self._desk.check_size(self._record(job_id), request.devices)
        asked = LeaveAsked(request.region, request.copy_ahead, request.why, request.node, request.devices)
        view = await self._desk.ask(job_id, asked)
        if request.why:
            made = Decision("migrate", "sent", request.why, {"region": request.region})
            self._region.planner.write(job_id, made)
        return view

    def passport(self, job_id: str, request: LeaveRequest) -> bytes:
        """What it would be given along; nothing is done."""
        self._desk.check_size(self._record(job_id), request.devices)
        return self._region.border.draft(self._record(job_id), request)

    def check(self, passport: bytes) -> None:
        """Whether a job like this would be taken."""
        self._region.border.check(passport)

    async def copied(self, job_id: str, news: CopiedNews) -> JobView:
        """All that is worth it was copied ahead."""
        return await self._desk.ask(job_id, Copied(news.rounds, news.nbytes, news.message))

    async def hand_over(self, job_id: str) -> tuple[bytes, int]:
        """Give a job away for good; its passport, and the passport's hops."""
        given = await self._desk.guard(self._region.border.out(job_id))
        snapshot = self._record(job_id).snapshot
        if snapshot is not None:  # it stands still until this is there
            self._region.archiving.hasten(snapshot.region, snapshot.snapshot_id, "migrate")
        return given

    async def take_in(self, passport: bytes) -> JobView:
        """Take a job that was given away."""
        return self._desk.view(await self._desk.guard(self._region.border.take_in(passport)))

    async def turned_back(self, job_id: str, hops: int, why: Problem) -> JobView:
        """The job that was given away with this passport is ours again."""
        return await self._desk.ask(job_id, TurnedBack(why.detail or why.title, hops))

    async def not_needed(self, job_id: str, hops: int) -> None:
        """What is left of a job that was given away for that time may go."""
        await self._desk.ask(job_id, NotNeeded(hops))

    def job(self, job_id: str) -> JobView:
        """A job by its whole id, be it elsewhere."""
        return self._desk.view(self._record(job_id))

    async def files(self, job_id: str) -> list[tuple[Path, str]]:
        """The work directories at a job's last cut here, be it elsewhere."""
        return await self._desk.files_of(self._record(job_id))

    def copy(self, order: CopyOrder) -> CopyStatus:
        """Bring a snapshot of another region here; how far that is."""
        if order.source.region in self._region.fleet.regions:
            return CopyStatus(order.job_id, order.source.snapshot_id)
        return self._region.sessions.errands.want(order)

    def drop_copy(self, snapshot_id: str, forget: bool) -> None:
        """It is not wanted any more; ``forget``: its job does not come."""
        self._region.sessions.errands.drop(snapshot_id)
        if forget:
            self._region.archiving.forget(job_of(snapshot_id))

    def read_log(self, job_id: str, rank: int, offset: int) -> bytes:
        """A piece of a rank's output, b"" at its end."""
        self._record(job_id)
        return self._region.logs.read(job_id, rank, offset, LOG_BYTES)

    def write_log(self, job_id: str, rank: int, offset: int, data: bytes) -> None:
        """What a job that is about to come has written so far. Raises Rejected: it is here."""
        record = self._service.records.get(job_id)
        if record is not None and not record.away:
            raise Rejected(409, "is_here", f"job {job_id} is here, and so is what it writes")
        if not self._region.logs.write(job_id, rank, offset, data):
            raise Rejected(409, "not_ready", f"what was written before byte {offset} is missing")

    def events(self, job_id: str | None, since_s: float, limit: int) -> list[EventView]:
        """The history later than a time, oldest first."""
        return self._region.journal.events(job_id, since_s, limit, by="at_s")

    def _record(self, job_id: str) -> JobRecord:
        record = self._service.records.get(job_id)
        if record is None:
            raise NotFound(f"there is no job {job_id}")
        return record
