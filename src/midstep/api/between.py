"""`/v1/internal` between the controllers: see `wire/between.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from midstep.api.bodies import parsed
from midstep.control.between.liaison import Liaison
from midstep.model.phase import CopyStatus
from midstep.wire.agent import CopyOrder
from midstep.wire.api import EventView, JobView, Problem
from midstep.wire.between import CopiedNews, LeaveRequest, RegionTold

_EVENTS = 1000
_MAX_EVENTS = 10_000


def between_routes(liaison: Liaison) -> APIRouter:
    """What the global controller asks."""
    router = APIRouter(prefix="/v1/internal")
    _jobs(router, liaison)

    @router.get("/told")
    async def told(seen: str = "") -> RegionTold:
        return liaison.told(seen)

    @router.post("/copies")
    async def copy(request: Request) -> CopyStatus:
        return liaison.copy(await parsed(CopyOrder, request))

    @router.delete("/copies/{snapshot}", status_code=204)
    async def drop_copy(snapshot: str) -> Response:
        liaison.drop_copy(snapshot)
        return Response(status_code=204)

    @router.get("/events")
    async def events(
        job: str | None = None,
        since_s: float = 0.0,
        limit: Annotated[int, Query(ge=1, le=_MAX_EVENTS)] = _EVENTS,
    ) -> list[EventView]:
        return liaison.events(job, since_s, limit)

    return router


def _jobs(router: APIRouter, liaison: Liaison) -> None:
    @router.post("/jobs", status_code=201)
    async def take_in(request: Request) -> JobView:
        return await liaison.take_in(await request.body())

    @router.post("/jobs/check", status_code=204)
    async def check(request: Request) -> Response:
        liaison.check(await request.body())
        return Response(status_code=204)

    @router.post("/jobs/{job}/passport")
    async def passport(job: str, request: Request) -> Response:
        body = liaison.passport(job, await parsed(LeaveRequest, request))
        return Response(body, media_type="application/octet-stream")

    @router.get("/jobs/{job}")
    async def show(job: str) -> JobView:
        return liaison.job(job)

    @router.post("/jobs/{job}/leave", status_code=202)
    async def leave(job: str, request: Request) -> JobView:
        return await liaison.leave(job, await parsed(LeaveRequest, request))

    @router.post("/jobs/{job}/copied")
    async def copied(job: str, request: Request) -> JobView:
        return await liaison.copied(job, await parsed(CopiedNews, request))

    @router.post("/jobs/{job}/hand-over")
    async def hand_over(job: str) -> Response:
        return Response(await liaison.hand_over(job), media_type="application/octet-stream")

    @router.post("/jobs/{job}/turned-back")
    async def turned_back(job: str, request: Request) -> JobView:
        return await liaison.turned_back(job, await parsed(Problem, request))

    @router.post("/jobs/{job}/not-needed", status_code=204)
    async def not_needed(job: str) -> Response:
        await liaison.not_needed(job)
        return Response(status_code=204)
