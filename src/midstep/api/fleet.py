"""The rest of `/v1`: health, nodes, events, uploads, and what agents fetch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from midstep.control.desk import Desk
from midstep.control.vaults.shipping import NotYet
from midstep.wire.api import EventView, Health, NodeView
from midstep.wire.metrics import MetricsView

EVENTS = 1000  # if no limit is given
After = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=10_000)]
Wait = Annotated[float, Query(ge=0.0, le=60.0)]


def fleet_routes(desk: Desk) -> APIRouter:
    """The routes that are not about one job."""
    router = APIRouter(prefix="/v1")

    @router.get("/health")
    async def health() -> Health:
        return desk.health()

    @router.get("/nodes")
    async def nodes() -> list[NodeView]:
        return desk.nodes()

    @router.get("/metrics")
    async def metrics() -> list[MetricsView]:
        return desk.all_metrics()

    @router.get("/events")
    async def events(
        job: str | None = None, after: After = 0, limit: Limit = EVENTS, wait_s: Wait = 0.0
    ) -> list[EventView]:
        return await desk.events(job, after, limit, wait_s)

    @router.post("/blobs", status_code=201)
    async def upload(request: Request) -> dict[str, str]:
        return {"blob": await desk.upload(request.stream())}

    @router.get("/internal/blobs/{blob}")
    async def blob(blob: str) -> FileResponse:
        return FileResponse(desk.blob(blob), media_type="application/gzip")

    _vaults(router, desk)
    return router


def _vaults(router: APIRouter, desk: Desk) -> None:
    @router.get("/internal/vault/{region}/{snapshot}")
    async def manifest(region: str, snapshot: str, patient: bool = False) -> Response:
        found = await desk.manifest(region, snapshot, patient=patient)
        if isinstance(found, NotYet):
            return JSONResponse(asdict(found), status_code=202)
        return Response(found, media_type="application/octet-stream")

    @router.post("/internal/vault/{region}/chunks")
    async def chunks(region: str, request: Request) -> StreamingResponse:
        stream = await desk.chunks(region, await request.body())
        return StreamingResponse(stream, media_type="application/octet-stream")
