"""Where requests to the whole fleet are answered: each is passed on to the region that it is about; what is
about all of them is put together.

Every method may raise Rejected, NotFound and StateError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import httpx
from pydantic import TypeAdapter

from midstep.control.errors import Rejected
from midstep.env import Clock
from midstep.federation.balance import depart
from midstep.federation.directory import Directory, Place
from midstep.federation.members import LIST_TIMEOUT_S, Member, Members
from midstep.federation.reception import Reception
from midstep.model.lifecycle import JobState
from midstep.wire.api import CUT_OFF, EventView, Health, JobView, MigrateRequest, NodeView, ResizeRequest
from midstep.wire.between import LeaveRequest
from midstep.wire.metrics import MetricsView
from midstep.wire.plan import PlanRequest, PlanView
from midstep.wire.schedule import QueueView

_VIEW = TypeAdapter(JobView)
_MICRO = 1e6
_SETTLED_S = 0.3  # what happened in one region since then may not be told yet
_POLL_S = 0.5
_TRANSIT_S, _LOOK_S = 5.0, 0.1  # a job has arrived after a moment, unless a controller is away


class Front:
    """The fleet's face."""

    def __init__(
        self,
        fleet: str,
        version: str,
        members: Members,
        directory: Directory,
        reception: Reception,
        clock: Clock,
    ) -> None:
        self._fleet, self._version, self._clock = fleet, version, clock
        self._members, self._directory, self._reception = members, directory, reception

    async def health(self) -> Health:
        """The fleet, and which regions cannot be reached."""
        parts: list[Health] = [h for h in await self._all("/v1/health", Health) if h is not None]
        nodes, connected = sum(h.nodes for h in parts), sum(h.nodes_connected for h in parts)
        regions = tuple(self._members.by_name)
        return Health(self._version, self._fleet, regions, nodes, connected, self._members.cut_off)

    async def nodes(self) -> list[NodeView]:
        """Of all regions that can be reached."""
        found = await self._all("/v1/nodes", list[NodeView])
        return sorted((node for part in found for node in part or ()), key=lambda node: node.name)

    async def metrics(self) -> list[MetricsView]:
        """Of all jobs that have devices."""
        return [view for part in await self._all("/v1/metrics", list[MetricsView]) for view in part or ()]

    async def queue(self) -> list[QueueView]:
        """Who waits, in all regions; each region serves its own."""
        rows: list[QueueView] = []
        for part in await self._all("/v1/queue", list[QueueView]):
            rows += part or ()
        rows.sort(key=lambda row: (row.tier.turn, row.priority.turn, row.since_s))
        return [replace(row, place=place) for place, row in enumerate(rows, 1)]

    async def jobs(self, state: str | None) -> list[JobView]:
        """All jobs in the order of submission. Those of a region that cannot be reached are as it said
        last."""
        if state is not None and state not in list(JobState):
            known = f"the states are {', '.join(JobState)}"
            raise Rejected(422, "invalid", "state is not valid", f"there is no state {state!r}", known)
        found: dict[str, JobView] = {}
        parts = await self._all("/v1/jobs", list[JobView])
        places = self._directory.all()
        for member, part in zip(self._members, parts, strict=True):
            if part is not None:
                member.views = part
            for view in member.views:
                place = places.get(view.job_id)
                if part is not None:
                    found[view.job_id] = view
                elif place is None or place.member is member:  # else it has gone on since
                    found.setdefault(view.job_id, _cut_off(view, member))
        lost = [p for p in places.values() if p.job.away and not p.job.over and p.job.job_id not in found]
        for view in await asyncio.gather(*(self._in_transit(place) for place in lost)):
            if view is not None:
                found[view.job_id] = view
        views = sorted(found.values(), key=lambda view: (view.submitted_s, view.job_id))
        return [view for view in views if state in (None, view.state)]

    async def job(self, asked: str) -> JobView:
        """One job, wherever it is; on its way, as who gave it away shows it."""
        place = await self._directory.find(asked)
        return await place.member.ask("GET", f"/v1/internal/jobs/{place.job.job_id}", JobView)

    async def about(self, asked: str, method: str, rest: str, **more: Any) -> httpx.Response:
        """A request about one job, to whoever has it. One that is on its way is waited for a while."""
        until_s = self._clock.monotonic_s() + _TRANSIT_S
        while True:
            place = await self._directory.find(asked)
            try:
                if not place.job.away:
                    path = f"/v1/jobs/{place.job.job_id}{rest}"
                    return await place.member.request(method, path, **more)
            except Rejected as error:
                if error.problem.code not in ("is_elsewhere", "no_such_job"):
                    raise
            if place.job.away and not self._members.member(place.job.away).reachable:
                words = f"job {place.job.job_id} is, or is about to be, in region {place.job.away}"
                raise Rejected(503, "region_cut_off", words, "which cannot be reached", "try again later")
            if self._clock.monotonic_s() >= until_s:
                raise _in_transit(place)
            await self._clock.sleep(_LOOK_S)
            await self._members.refresh()

    async def files(self, asked: str) -> AsyncIterator[bytes]:
        """A job's work directory, as it comes."""
        place = await self._settled(asked)
        path = f"/jobs/{place.job.job_id}/files"
        try:
            return await place.member.stream("GET", f"/v1{path}")
        except Rejected as error:
            kept_in = self._members.by_name.get(place.job.snapshot_region)
            if error.problem.code != "not_found" or kept_in in (None, place.member):
                raise
            assert kept_in is not None
            return await kept_in.stream("GET", f"/v1/internal{path}")  # it has not run here yet

    async def migrate(self, asked: str, request: MigrateRequest) -> JobView:
        """Within its region, that region's business; else it is handed over."""
        place = await self._settled(asked)
        target, node = self._destination(request.to)
        if target is place.member:
            return await self._ask(asked, "/migrate", request)
        return await self._leave(place, target, LeaveRequest(target.name, request.copy_ahead, node=node))

    async def resize(self, asked: str, request: ResizeRequest) -> JobView:
        """As `migrate`, where it names a place."""
        place = await self._settled(asked)
        target, node = self._destination(request.to) if request.to else (place.member, None)
        if target is place.member or request.devices is None:
            return await self._ask(asked, "/resize", request)
        return await self._leave(
            place, target, LeaveRequest(target.name, True, node=node, devices=request.devices)
        )

    async def plan(self, request: PlanRequest) -> PlanView:
        """What would happen, in the region that it would happen in."""
        if request.drain is not None:
            member = self.of_node(request.drain)
        elif request.submit is not None:
            asked = PlanRequest(submit=replace(request.submit, workdir_blob=None))
            return await self._plan(asked, await self._reception.candidates(request.submit))
        else:
            member = next(iter(self._members))
        return await member.ask("POST", "/v1/plan", PlanView, request)

    async def _plan(self, request: PlanRequest, members: list[Member]) -> PlanView:
        """As the first region says that can do it, else as the first one says."""
        views: list[PlanView] = []
        for member in members:
            views.append(await member.ask("POST", "/v1/plan", PlanView, request))
            if views[-1].fits:
                return views[-1]
        return views[0]

    def of_node(self, node: str) -> Member:
        """Raises Rejected: no region has told of it."""
        member = self._members.of_node(node)
        if member is None:
            known = ", ".join(self._members.nodes)
            raise Rejected(404, "no_such_node", f"there is no node {node!r}", known, "`midstep nodes`")
        return member

    def member(self, region: str) -> Member:
        """Raises Rejected."""
        return self._members.member(region)

    async def events(self, asked: str | None, after: int, limit: int, wait_s: float) -> list[EventView]:
        """All regions' history. The number of an event is its time in microseconds: events of one moment have
        the same one, and are told together."""
        job_id = (await self._directory.find(asked)).job.job_id if asked else None
        until_s = self._clock.monotonic_s() + wait_s
        while True:
            rows = await self._events(job_id, after, limit)
            if rows or self._clock.monotonic_s() >= until_s:
                return rows
            await self._clock.sleep(_POLL_S)

    async def _events(self, job_id: str | None, after: int, limit: int) -> list[EventView]:
        settled_s = self._clock.now_s() - _SETTLED_S
        params: dict[str, Any] = {"since_s": after / _MICRO, "limit": limit}
        if job_id is not None:
            params["job"] = job_id
        parts = await self._all("/v1/internal/events", list[EventView], params=params)
        # Of a region that has more to tell, what happened at the last moment may not be all of it.
        long = [part for part in parts if part and len(part) >= limit and part[0].at_s < part[-1].at_s]
        rows = [row for part in parts for row in part or () if row.at_s <= settled_s]
        rows = [row for row in rows if all(row.at_s < part[-1].at_s for part in long)]
        rows.sort(key=lambda row: row.at_s)
        numbered = [replace(row, number=round(row.at_s * _MICRO)) for row in rows]
        numbered = [row for row in numbered if row.number > after]
        last = numbered[limit - 1].number if len(numbered) > limit else None
        return [row for row in numbered if last is None or row.number <= last]

    async def _settled(self, asked: str) -> Place:
        """Where a job is; Rejected while it is on its way."""
        place = await self._directory.find(asked)
        if place.job.away:
            await self._members.refresh()  # it may have arrived, or come back, a moment ago
            place = await self._directory.find(place.job.job_id)
        if place.job.away:
            raise _in_transit(place)
        return place

    async def _ask(self, asked: str, verb: str, body: MigrateRequest | ResizeRequest) -> JobView:
        """What its region does by itself."""
        return _VIEW.validate_json((await self.about(asked, "POST", verb, json=asdict(body))).content)

    async def _leave(self, place: Place, target: Member, request: LeaveRequest) -> JobView:
        if not target.reachable:
            words = f"region {target.name} cannot be reached; the job stays where it is"
            raise Rejected(503, "region_cut_off", words, "", "try again when it can be")
        try:
            view = await depart(place.member, target, place.job.job_id, request)
        except Rejected as error:
            if error.problem.code != "is_elsewhere":
                raise
            raise _in_transit(place) from None  # it has just gone
        await place.member.refresh()
        return view

    def _destination(self, to: str) -> tuple[Member, str | None]:
        """A node's region and name, else a region's."""
        if (member := self._members.of_node(to)) is not None:
            return member, to
        if to in self._members.by_name:
            return self._members.by_name[to], None
        names = ", ".join([*self._members.nodes, *self._members.by_name])
        raise Rejected(422, "no_such_place", f"there is no node or region {to!r}", f"there are {names}")

    async def _in_transit(self, place: Place) -> JobView | None:
        try:
            return await place.member.ask("GET", f"/v1/internal/jobs/{place.job.job_id}", JobView)
        except Rejected:
            return None

    async def _all(self, path: str, kind: Any, **more: Any) -> list[Any]:
        """The answer of every region; None of those that cannot be reached."""

        async def one(member: Member) -> Any:
            try:
                return await member.ask("GET", path, kind, timeout=LIST_TIMEOUT_S, **more)
            except Rejected as error:
                if error.problem.code not in CUT_OFF:
                    raise
                return None

        return await asyncio.gather(*(one(member) for member in self._members))


def _cut_off(view: JobView, member: Member) -> JobView:
    """As it was."""
    return replace(view, reason=f"region {member.name} cannot be reached; it was {view.state} when last seen")


def _in_transit(place: Place) -> Rejected:
    job = place.job
    to = f" to {job.away}" if job.away else ""
    words = f"job {job.job_id} is on its way from {place.member.name}{to}"
    return Rejected(409, "is_migrating", words, "", "try again when it is there")
