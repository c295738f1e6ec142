"""Where requests are answered: names are looked up, what cannot be is rejected with words, records become
views.

Every method may raise Rejected, NotFound and StateError. The HTTP interface only carries this over.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from midstep.control.admission import check_possible, spec_of
from midstep.control.between.relay import Relay
from midstep.control.errors import NotFound, Rejected, invalid
from midstep.control.lookup import find
from midstep.control.region import Region
from midstep.control.scheduling.scheduler import want_at, want_resized
from midstep.control.vaults.forking import fork
from midstep.control.vaults.shipping import NotYet
from midstep.control.views import job_view, node_views
from midstep.engine.effects import Log
from midstep.engine.errors import Refused
from midstep.engine.events import (
    CancelAsked,
    CheckpointAsked,
    Event,
    Freed,
    MigrateAsked,
    Origin,
    ResizeAsked,
    ResumeAsked,
    Submitted,
    SuspendAsked,
)
from midstep.engine.record import JobRecord
from midstep.model.job import JobSpec
from midstep.model.lifecycle import JobState, Stage
from midstep.vault.errors import SnapshotMissing
from midstep.wire.api import EventView, Health, JobRequest, JobView, LogView, NodeView
from midstep.wire.metrics import MetricsView

T = TypeVar("T")
_IDLE = (Stage.WAITING, Stage.OVER)


class Desk:
    """What users and agents may ask of a region's controller."""

    def __init__(self, region: Region, version: str) -> None:
        self._region, self._version = region, version
        self._service = region.service

    def health(self) -> Health:
        """The controller is up."""
        fleet = self._region.fleet
        name = self._region.settings.fleet
        return Health(self._version, name, fleet.regions, len(fleet.nodes), len(fleet.connected))

    def nodes(self) -> list[NodeView]:
        """All nodes, by name."""
        fleet = self._region.fleet
        return node_views(fleet.nodes, self._service.records.values(), fleet.cordons.names)

    async def submit(self, request: JobRequest, job_id: str | None = None) -> JobView:
        """Take a job. ``job_id``: under this id, which who asks has made."""
        if request.from_snapshot is not None:
            region = self._region
            found = await asyncio.to_thread(
                fork, request, dict(self._service.records), region.vaults, region.fleet
            )
            return await self._take_in(found.spec, request, job_id, found.origin)
        return await self._take_in(spec_of(request, self._region.fleet, self._region.blobs), request, job_id)

    async def _take_in(
        self, spec: JobSpec, request: JobRequest, job_id: str | None, origin: Origin | None = None
    ) -> JobView:
        planner, records = self._region.planner, self._service.records
        if job_id in records:
            raise Rejected(409, "job_exists", f"there is a job {job_id} already")
        spec, less = planner.admit(spec, request.tier)
        job_id = job_id or self._region.ids.job(taken=records)
        view = await self.ask(job_id, Submitted(job_id, spec, origin))
        if less is not None:
            planner.write(job_id, less)
            self._service.note(job_id, Log("waiting", f"runs as {spec.tier}: {less.message}"))
        return view

    def jobs(self, state: str | None) -> list[JobView]:
        """All jobs in the order of submission, or those in one state."""
        if state is not None and state not in list(JobState):
            raise invalid("state", f"there is no state {state!r}", f"the states are {', '.join(JobState)}")
        records = sorted(
            self._service.records.values(), key=lambda record: (record.submitted_s, record.job_id)
        )
        here = [record for record in records if not record.away]
        return [self.view(record) for record in here if state in (None, record.shown)]

    def job(self, asked: str) -> JobView:
        """One job, by id, unique beginning of an id, or name."""
        return self.view(self._find(asked))

    def metrics(self, asked: str) -> MetricsView:
        """What one job does with its devices."""
        return self._region.meters.view(self._find(asked))

    def all_metrics(self) -> list[MetricsView]:
        """Of all jobs that have devices, in the order of submission; without their history."""
        records = [record for record in self._service.records.values() if record.devices]
        records.sort(key=lambda record: (record.submitted_s, record.job_id))
        return [self._region.meters.view(record, history=False) for record in records]

    async def suspend(self, asked: str) -> JobView:
        """Free the job's devices, keep its state."""
        return await self.ask(self._find(asked).job_id, SuspendAsked())

    async def resume(self, asked: str) -> JobView:
        """Go on from where it was."""
        return await self.ask(self._find(asked).job_id, ResumeAsked())

    async def checkpoint(self, asked: str) -> JobView:
        """Save a running job now; it goes on."""
        return await self.ask(self._find(asked).job_id, CheckpointAsked())

    async def migrate(self, asked: str, to: str, *, copy_ahead: bool = True) -> JobView:
        """Go on at a node or in a region."""
        record = self._find(asked)
        there = replace(self._destination(to), ahead=copy_ahead)
        if record.stage not in (Stage.ENDING, Stage.OVER):
            check_possible(want_at(record, there.node, there.region), self._region.fleet)
        return await self.ask(record.job_id, there)

    async def resize(self, asked: str, devices: int | None, to: str | None) -> JobView:
        """Go on with another number of devices, at a node or in a region if ``to`` is given; None: with as
        many as the scheduler sees fit."""
        record = self._find(asked)
        if devices is None:
            if to is not None:
                raise invalid("to", "it needs a number of devices", "or use `midstep migrate`")
            return await self.ask(record.job_id, Freed())
        self.check_size(record, devices)
        there = self._destination(to) if to is not None else MigrateAsked()
        if record.stage not in (Stage.ENDING, Stage.OVER):
            want = want_resized(record, devices)
            if to is not None:
                want = replace(want, node=there.node, region=there.region)
            check_possible(want, self._region.fleet)
        return await self.ask(record.job_id, ResizeAsked(devices, there.node, there.region))

    def check_size(self, record: JobRecord, devices: int | None) -> None:
        """Raises Rejected: a job cannot have so many devices."""
        if devices is None:
            return
        most, part = record.spec.world_size, record.spec.amount(1)
        if part != 1:
            words = f"job {record.job_id} has {part:g} of a device, and keeps to that"
            raise invalid("devices", words, "`midstep run --from` starts another one from its snapshot")
        if not 1 <= devices <= most and devices != record.spec.devices:
            able = "1 rank and 1 device" if most == 1 else f"{most} ranks: it can have 1 to {most} devices"
            words = f"job {record.job_id} has {able}, not {devices}"
            raise invalid("devices", words, "the world size of a job never changes")

    async def cancel(self, asked: str) -> JobView:
        """Stop the job for good."""
        return await self.ask(self._find(asked).job_id, CancelAsked())

    def logs(self, asked: str, rank: int, offset: int, limit: int) -> LogView:
        """A piece of a rank's output."""
        record = self._find(asked)
        if not 0 <= rank < record.spec.world_size:
            raise invalid(
                "rank", f"job {record.job_id} has ranks 0 to {record.spec.world_size - 1}, not {rank}"
            )
        logs = self._region.logs
        data = logs.read(record.job_id, rank, offset, limit)
        idle = record.stage in _IDLE
        at_end = offset + len(data) >= logs.size(record.job_id, rank)
        # A character that is cut by the end of the piece is left for the next one, unless nothing will
        # follow.
        text, used = codecs.utf_8_decode(data, "replace", idle and at_end)
        if used == 0 and data:  # a piece too short to hold one character
            text, used = codecs.utf_8_decode(data, "replace", True)
        return LogView(text, offset, offset + used, ended=idle and at_end)

    async def files(self, asked: str) -> list[tuple[Path, str]]:
        """The work directories of an ended or suspended job, each with its name in the archive: virtual host
        0's at the top (''), others below ``home-K``."""
        return await self.files_of(self._find(asked))

    async def files_of(self, record: JobRecord) -> list[tuple[Path, str]]:
        """The same of one that may have been handed over."""
        folder = await self._left_by(record)
        homes = sorted(folder.glob("home-*"), key=lambda path: int(path.name[5:])) if folder else []
        if not homes:
            raise Rejected(404, "no_files", f"job {record.job_id} has left no files")
        trees = [home / "work" if (home / "work").is_dir() else home for home in homes]
        return [
            (tree, "" if home.name == "home-0" else home.name)
            for home, tree in zip(homes, trees, strict=True)
        ]

    async def manifest(self, region: str, snapshot_id: str, *, patient: bool = False) -> bytes | NotYet:
        """A snapshot's archived manifest, for an agent of another region."""
        if (relay := self._relay(region)) is not None:
            return await relay.manifest(region, snapshot_id, patient=patient)
        return await self._region.shipping.manifest(region, snapshot_id, patient=patient)

    async def chunks(self, region: str, body: bytes) -> Iterator[bytes] | AsyncIterator[bytes]:
        """Chunks of a region's archive, for an agent of another one."""
        if (relay := self._relay(region)) is not None:
            return await relay.chunks(region, body)
        return await self._region.shipping.chunks(region, body)

    def blob(self, name: str) -> Path:
        """An upload's file."""
        return self._region.blobs.path(name)

    async def upload(self, pieces: AsyncIterator[bytes]) -> str:
        """Keep a work directory; answers its name. Raises BadBlob, OSError."""
        return await self._region.blobs.put(pieces)

    async def events(self, asked: str | None, after: int, limit: int, wait_s: float) -> list[EventView]:
        """The fleet's history, or a job's, after an event's number; waits for the first one if there is
        none."""
        job_id = self._find(asked).job_id if asked else None
        if wait_s > 0:
            return await self._region.history.wait(job_id, after, limit, wait_s)
        return self._region.history.read(job_id, after, limit)

    def _relay(self, region: str) -> Relay | None:
        """Who reaches a region that is not ours."""
        return None if region in self._region.fleet.regions else self._region.relay

    def _find(self, asked: str) -> JobRecord:
        return find(self._service.records, asked)

    def view(self, record: JobRecord) -> JobView:
        """A job as users see it."""
        now_s = self._service.now_s()
        saved = self._service.timetable(now_s).view(record, now_s)
        return job_view(record, now_s, saved, self._region.accounts.view(record, now_s))

    async def ask(self, job_id: str, event: Event) -> JobView:
        """Let an event happen; what becomes of it."""
        return self.view(await self.guard(self._service.ask(job_id, event)))

    async def guard(self, asked: Awaitable[T]) -> T:
        """What the engine refuses, as what users are told."""
        try:
            return await asked
        except Refused as refusal:
            detail = f"its state is {refusal.state}"
            raise Rejected(409, refusal.code, refusal.message, detail, refusal.hint) from None

    def _destination(self, to: str) -> MigrateAsked:
        """A node's name, else a region's."""
        fleet = self._region.fleet
        fleet.cordons.refuse(to)
        if to in fleet.nodes:
            return MigrateAsked(node=to)
        if to in fleet.regions:
            return MigrateAsked(region=to)
        names = ", ".join([*sorted(fleet.nodes), *fleet.regions])
        raise Rejected(422, "no_such_place", f"there is no node or region {to!r}", f"there are {names}")

    async def _left_by(self, record: JobRecord) -> Path | None:
        if record.stage is Stage.OVER:
            return self._region.vaults.results(record.job_id)
        if record.stage is Stage.WAITING and record.snapshot is not None:
            try:
                ref = record.snapshot
                return await self._region.vaults.folder(ref.region, ref.snapshot_id, images=False)
            except SnapshotMissing as error:
                raise NotFound(str(error)) from None
        title = f"the files of job {record.job_id} are in use"
        hint = "suspend it, or wait until it has ended"
        raise Rejected(409, "no_files", title, f"its state is {record.shown}", hint)
