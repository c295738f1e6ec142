"""The scheduler's routes of `/v1`: see `wire/schedule.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from midstep.api.bodies import drain_request, plan_request, quota_request
from midstep.control.scheduling.office import Office
from midstep.wire.api import NodeView
from midstep.wire.plan import PlanRequest, PlanView
from midstep.wire.schedule import DrainRequest, DrainView, QueueView, QuotaRequest, QuotaView, WhyView


def schedule_routes(office: Office) -> APIRouter:
    """The routes of the queue, of quotas, and of nodes that are to be emptied."""
    router = APIRouter(prefix="/v1")

    @router.get("/queue")
    async def queue() -> list[QueueView]:
        return office.queue()

    @router.get("/jobs/{job}/why")
    async def why(job: str) -> WhyView:
        return office.why(job)

    @router.get("/quotas")
    async def quotas() -> list[QuotaView]:
        return office.quotas()

    @router.put("/quotas/{project:path}")
    async def put_quota(project: str, request: Annotated[QuotaRequest, Depends(quota_request)]) -> QuotaView:
        return office.set_quota(project, request)

    @router.delete("/quotas/{project:path}", status_code=204)
    async def forget_quota(project: str) -> Response:
        office.forget_quota(project)
        return Response(status_code=204)

    @router.post("/plan")
    async def plan(request: Annotated[PlanRequest, Depends(plan_request)]) -> PlanView:
        return office.plan(request)

    _nodes(router, office)
    return router


def _nodes(router: APIRouter, office: Office) -> None:
    @router.post("/nodes/{node}/cordon")
    async def cordon(node: str) -> NodeView:
        return office.cordon(node)

    @router.post("/nodes/{node}/uncordon")
    async def uncordon(node: str) -> NodeView:
        return office.uncordon(node)

    @router.post("/nodes/{node}/drain", status_code=202)
    async def drain(node: str, request: Annotated[DrainRequest, Depends(drain_request)]) -> DrainView:
        return office.drain(node, request.deadline_s)

    @router.get("/nodes/{node}/drain")
    async def drained(node: str) -> DrainView:
        return office.drained(node)
