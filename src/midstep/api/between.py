"""`/v1/internal` between the controllers: see `wire/between.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from starlette.responses import Response, StreamingResponse

from midstep.api.bodies import parsed
from midstep.api.files import tar_stream
from midstep.api.fleet import EVENTS, Limit
from midstep.api.jobs import JOB_ID
from midstep.control.between.liaison import Liaison
from midstep.model.phase import CopyStatus
from midstep.wire.agent import CopyOrder
from midstep.wire.api import EventView, JobView, Problem
from midstep.wire.between import HOPS, CopiedNews, LeaveRequest, RegionTold


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
    async def drop_copy(snapshot: str, forget: bool = False) -> Response:
        liaison.drop_copy(snapshot, forget)
        return Response(status_code=204)

    @router.get("/events")
    async def events(job: str | None = None, since_s: float = 0.0, limit: Limit = EVENTS) -> list[EventView]:
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

    @router.get("/jobs/{job}/files")
    async def files(job: str) -> StreamingResponse:
        return StreamingResponse(tar_stream(await liaison.files(job)), media_type="application/x-tar")

    @router.post("/jobs/{job}/leave", status_code=202)
    async def leave(job: str, request: Request) -> JobView:
        return await liaison.leave(job, await parsed(LeaveRequest, request))

    @router.post("/jobs/{job}/copied")
    async def copied(job: str, request: Request) -> JobView:
        return await liaison.copied(job, await parsed(CopiedNews, request))

    @router.post("/jobs/{job}/hand-over")
    async def hand_over(job: str) -> Response:
        body, hops = await liaison.hand_over(job)
        return Response(body, headers={HOPS: str(hops)}, media_type="application/octet-stream")

    @router.get("/jobs/{job}/logs/{rank}")
    async def read_log(job: str, rank: int, offset: Annotated[int, Query(ge=0)] = 0) -> Response:
        return Response(liaison.read_log(job, rank, offset), media_type="application/octet-stream")

    @router.put("/jobs/{job}/logs/{rank}", status_code=204)
    async def write_log(
        job: Annotated[str, PathParameter(pattern=JOB_ID)],
        rank: Annotated[int, PathParameter(ge=0)],
        request: Request,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        liaison.write_log(job, rank, offset, await request.body())
        return Response(status_code=204)

    @router.post("/jobs/{job}/turned-back")
    async def turned_back(job: str, hops: int, request: Request) -> JobView:
        return await liaison.turned_back(job, hops, await parsed(Problem, request))

    @router.post("/jobs/{job}/not-needed", status_code=204)
    async def not_needed(job: str, hops: int) -> Response:
        await liaison.not_needed(job, hops)
        return Response(status_code=204)
