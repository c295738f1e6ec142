"""The HTTP application over a region controller."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from fastapi import FastAPI, Request
from starlette.responses import Response

from midstep.api.agents import agent_routes
from midstep.api.between import between_routes
from midstep.api.fleet import fleet_routes
from midstep.api.jobs import job_routes
from midstep.api.problems import answer, install
from midstep.api.schedule import schedule_routes
from midstep.control.between.liaison import Liaison
from midstep.control.desk import Desk
from midstep.control.region import Region
from midstep.control.scheduling.office import Office
from midstep.wire.api import Problem

Next = Callable[[Request], Awaitable[Response]]


def build(region: Region) -> FastAPI:
    """All routes; the region runs as long as the application does."""

    app = application(region, region.settings.token)
    desk = Desk(region, our_version())
    app.include_router(job_routes(desk))
    app.include_router(fleet_routes(desk))
    app.include_router(schedule_routes(Office(region)))
    app.include_router(between_routes(Liaison(region, desk)))
    app.include_router(agent_routes(region))
    return app


class Running(Protocol):
    """What runs for as long as its application does."""

    def start(self) -> None: ...
    async def stop(self) -> None: ...


def application(running: Running, token: str) -> FastAPI:
    """One without routes, that lets in only who knows the fleet's token."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        running.start()
        yield
        await running.stop()

    app = FastAPI(
        title="Midstep", lifespan=lifespan, openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None
    )
    _guard(app, token)
    install(app)
    return app


def _guard(app: FastAPI, token: str) -> None:
    expected = f"Bearer {token}".encode()

    @app.middleware("http")
    async def authorize(request: Request, call_next: Next) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, expected):
            hint = "send `Authorization: Bearer TOKEN`; the token is in the fleet's client.json"
            return answer(Problem("the token is missing or wrong", 401, "not_allowed", "", hint))
        return await call_next(request)


def our_version() -> str:
    """Of Midstep."""
    try:
        return version("midstep")
    except PackageNotFoundError:  # run from a checkout
        return "0.0.0"
