"""The rest of `/v1`: health, nodes, events, uploads, and what agents fetch."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, StreamingResponse

from midstep.api.files import tar_stream
from midstep.control.desk import Desk
from midstep.wire.api import EventView, Health, NodeView

_EVENTS = 1000
_MAX_EVENTS = 10_000
_LONGEST_WAIT_S = 60.0


def fleet_routes(desk: Desk) -> APIRouter:
    """The routes that are not about one job."""
    router = APIRouter(prefix="/v1")

    @router.get("/health")
    async def health() -> Health:
        return desk.health()

    @router.get("/nodes")
    async def nodes() -> list[NodeView]:
        return desk.nodes()

    @router.get("/events")
    async def events(
        job: str | None = None,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=_MAX_EVENTS)] = _EVENTS,
        wait_s: Annotated[float, Query(ge=0.0, le=_LONGEST_WAIT_S)] = 0.0,
    ) -> list[EventView]:
        return await desk.events(job, after, limit, wait_s)

    @router.post("/blobs", status_code=201)
    async def upload(request: Request) -> dict[str, str]:
        return {"blob": await desk.upload(request.stream())}

    @router.get("/internal/blobs/{blob}")
    async def blob(blob: str) -> FileResponse:
        return FileResponse(desk.blob(blob), media_type="application/gzip")

    @router.get("/internal/vault/{region}/{snapshot}")
    async def snapshot(region: str, snapshot: str) -> StreamingResponse:
        return StreamingResponse(
            tar_stream([(desk.snapshot(region, snapshot), "")]), media_type="application/x-tar"
        )

    return router
