"""`/v1/jobs`: submit, look, and ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import StreamingResponse

from midstep.api.bodies import job_request, migrate_request, resize_request
from midstep.api.files import tar_stream
from midstep.control.desk import Desk
from midstep.wire.api import JobRequest, JobView, LogView, MigrateRequest, ResizeRequest
from midstep.wire.metrics import MetricsView

JOB_ID = r"^j-[0-9a-f]{6,32}$"
_LOG_BYTES = 1 << 18
_MAX_LOG_BYTES = 1 << 20


def job_routes(desk: Desk) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(prefix="/v1/jobs")
    _reads(router, desk)

    @router.post("", status_code=201)
    async def submit(
        request: Annotated[JobRequest, Depends(job_request)],
        as_id: Annotated[str | None, Query(alias="as", pattern=JOB_ID)] = None,
    ) -> JobView:
        return await desk.submit(request, as_id)

    @router.post("/{job}/suspend", status_code=202)
    async def suspend(job: str) -> JobView:
        return await desk.suspend(job)

    @router.post("/{job}/resume", status_code=202)
    async def resume(job: str) -> JobView:
        return await desk.resume(job)

    @router.post("/{job}/checkpoint", status_code=202)
    async def checkpoint(job: str) -> JobView:
        return await desk.checkpoint(job)

    @router.post("/{job}/migrate", status_code=202)
    async def migrate(job: str, request: Annotated[MigrateRequest, Depends(migrate_request)]) -> JobView:
        return await desk.migrate(job, request.to, copy_ahead=request.copy_ahead)

    @router.post("/{job}/resize", status_code=202)
    async def resize(job: str, request: Annotated[ResizeRequest, Depends(resize_request)]) -> JobView:
        return await desk.resize(job, request.devices, request.to)

    @router.post("/{job}/cancel", status_code=202)
    async def cancel(job: str) -> JobView:
        return await desk.cancel(job)

    return router


def _reads(router: APIRouter, desk: Desk) -> None:
    @router.get("")
    async def list_jobs(state: str | None = None) -> list[JobView]:
        return desk.jobs(state)

    @router.get("/{job}")
    async def show(job: str) -> JobView:
        return desk.job(job)

    @router.get("/{job}/metrics")
    async def metrics(job: str) -> MetricsView:
        return desk.metrics(job)

    @router.get("/{job}/logs")
    async def logs(
        job: str,
        rank: int = 0,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=_MAX_LOG_BYTES)] = _LOG_BYTES,
    ) -> LogView:
        return desk.logs(job, rank, offset, limit)

    @router.get("/{job}/files")
    async def files(job: str) -> StreamingResponse:
        return StreamingResponse(tar_stream(await desk.files(job)), media_type="application/x-tar")
