"""The HTTP application over the global controller: the same `/v1` as a region's, for the whole fleet."""

from __future__ import annotations

from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from midstep.api.app import Next, application
from midstep.api.bodies import job_request, migrate_request, plan_request, quota_request, resize_request
from midstep.api.fleet import EVENTS, After, Limit, Wait
from midstep.federation.centre import Centre
from midstep.wire.api import (
    CUT_OFF_HEADER,
    EventView,
    Health,
    JobRequest,
    JobView,
    MigrateRequest,
    NodeView,
    ResizeRequest,
)
from midstep.wire.metrics import MetricsView
from midstep.wire.plan import PlanRequest, PlanView
from midstep.wire.schedule import QueueView, QuotaRequest, QuotaView

_BINARY = "application/octet-stream"


def build(centre: Centre) -> FastAPI:
    """All routes; the global controller runs as long as the application does."""

    app = application(centre, centre.settings.token)

    @app.middleware("http")
    async def say_cut_off(request: Request, call_next: Next) -> Response:
        response = await call_next(request)
        if cut_off := centre.members.cut_off:
            response.headers[CUT_OFF_HEADER] = ", ".join(cut_off)
        return response

    for routes in (_jobs, _fleet, _schedule, _passed_on):
        router = APIRouter(prefix="/v1")
        routes(router, centre)
        app.include_router(router)
    return app


def _jobs(router: APIRouter, centre: Centre) -> None:
    front = centre.front

    @router.post("/jobs", status_code=201)
    async def submit(request: Annotated[JobRequest, Depends(job_request)]) -> JobView:
        return await centre.reception.submit(request)

    @router.get("/jobs")
    async def list_jobs(state: str | None = None) -> list[JobView]:
        return await front.jobs(state)

    @router.get("/jobs/{job}")
    async def show(job: str) -> JobView:
        return await front.job(job)

    @router.post("/jobs/{job}/migrate", status_code=202)
    async def migrate(job: str, request: Annotated[MigrateRequest, Depends(migrate_request)]) -> JobView:
        return await front.migrate(job, request)

    @router.post("/jobs/{job}/resize", status_code=202)
    async def resize(job: str, request: Annotated[ResizeRequest, Depends(resize_request)]) -> JobView:
        return await front.resize(job, request)

    @router.get("/jobs/{job}/files")
    async def files(job: str) -> StreamingResponse:
        return StreamingResponse(await front.files(job), media_type="application/x-tar")

    @router.get("/jobs/{job}/{what}")
    async def look(job: str, what: str, request: Request) -> Response:
        return _same(await front.about(job, "GET", f"/{what}", params=request.query_params))

    @router.post("/jobs/{job}/{verb}")
    async def ask(job: str, verb: str, request: Request) -> Response:
        return _same(await front.about(job, "POST", f"/{verb}", content=await request.body()))


def _fleet(router: APIRouter, centre: Centre) -> None:
    front = centre.front

    @router.get("/health")
    async def health() -> Health:
        return await front.health()

    @router.get("/nodes")
    async def nodes() -> list[NodeView]:
        return await front.nodes()

    @router.get("/metrics")
    async def metrics() -> list[MetricsView]:
        return await front.metrics()

    @router.get("/events")
    async def events(
        job: str | None = None, after: After = 0, limit: Limit = EVENTS, wait_s: Wait = 0.0
    ) -> list[EventView]:
        return await front.events(job, after, limit, wait_s)

    @router.post("/blobs", status_code=201)
    async def upload(request: Request) -> dict[str, str]:
        return {"blob": await centre.blobs.put(request.stream())}

    @router.get("/internal/blobs/{blob}")
    async def blob(blob: str) -> FileResponse:
        return FileResponse(centre.blobs.path(blob), media_type="application/gzip")


def _schedule(router: APIRouter, centre: Centre) -> None:
    @router.get("/queue")
    async def queue() -> list[QueueView]:
        return await centre.front.queue()

    @router.get("/quotas")
    async def quotas() -> list[QuotaView]:
        return await centre.quotas.views()

    @router.put("/quotas/{project:path}")
    async def put_quota(project: str, request: Annotated[QuotaRequest, Depends(quota_request)]) -> QuotaView:
        return await centre.quotas.put(project, request)

    @router.delete("/quotas/{project:path}", status_code=204)
    async def forget_quota(project: str) -> Response:
        await centre.quotas.forget(project)
        return Response(status_code=204)

    @router.post("/plan")
    async def plan(request: Annotated[PlanRequest, Depends(plan_request)]) -> PlanView:
        return await centre.front.plan(request)


def _passed_on(router: APIRouter, centre: Centre) -> None:
    """What one region answers alone."""

    @router.api_route("/nodes/{node}/{verb}", methods=["GET", "POST"])
    async def node(node: str, verb: str, request: Request) -> Response:
        member = centre.front.of_node(node)
        body = await request.body()
        found = await member.request(request.method, f"/v1/nodes/{node}/{verb}", content=body)
        return _same(found)

    @router.get("/internal/vault/{region}/{snapshot}")
    async def manifest(region: str, snapshot: str, patient: bool = False) -> Response:
        path, asked = f"/v1/internal/vault/{region}/{snapshot}", {"patient": patient}
        found = await centre.front.member(region).request("GET", path, params=asked)
        return _same(found)

    @router.post("/internal/vault/{region}/chunks")
    async def chunks(region: str, request: Request) -> StreamingResponse:
        path = f"/v1/internal/vault/{region}/chunks"
        body = await request.body()
        pieces = await centre.front.member(region).stream("POST", path, content=body)
        return StreamingResponse(pieces, media_type=_BINARY)


def _same(found: httpx.Response) -> Response:
    """A region's answer as it is."""
    return Response(found.content, found.status_code, media_type=found.headers.get("content-type"))
