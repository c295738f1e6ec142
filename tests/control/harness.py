"""A controller in this process on a free port, fake agents, and an HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from midstep.api.app import build
from midstep.app.controller import listen
from midstep.control.region import Region, Settings
from midstep.model.fleet import Node
from tests.control.fake_agent import Fails, FakeAgent

TOKEN = "secret"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Fleet:
    """What a test talks to."""

    region: Region
    http: httpx.AsyncClient
    url: str
    root: Path
    agents: dict[str, FakeAgent] = field(default_factory=dict[str, FakeAgent])
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def add(self, node: Node, fails: Fails = lambda _: None) -> FakeAgent:
        """Connect a node."""
        url = self.url.replace("http", "ws") + "/v1/agents"
        agent = FakeAgent(url, TOKEN, node, self.root / node.region, fails)
        self.agents[node.name] = await self.stack.enter_async_context(agent)
        await until(lambda: node.name in self.region.fleet.connected)
        return agent

    async def submit(self, *command: str, **fields: Any) -> str:
        """A job; returns its id."""
        body = {"command": command or ("python", "train.py"), **fields}
        response = await self.http.post("/v1/jobs", json=body)
        assert response.status_code == 201, response.text
        return response.json()["job_id"]

    async def post(self, job_id: str, verb: str, status: int = 202, **body: Any) -> dict[str, Any]:
        """suspend, resume, migrate, cancel."""
        response = await self.http.post(f"/v1/jobs/{job_id}/{verb}", json=body or None)
        assert response.status_code == status, response.text
        return response.json()

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job's view."""
        response = await self.http.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()

    async def reaches(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait for a state."""
        view = await self.job(job_id)
        for _ in range(500):
            if view["state"] in states:
                return view
            await asyncio.sleep(0.02)
            view = await self.job(job_id)
        raise AssertionError(f"job {job_id} is {view['state']} ({view['reason']}), not {states}: {view}")


async def until(condition: Callable[[], bool], rounds: int = 500) -> None:
    """Wait for something to become true."""
    for _ in range(rounds):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never became true")


@contextlib.asynccontextmanager
async def running(
    root: Path,
    regions: tuple[str, ...] = ("east", "west"),
    beat_s: float = 0.2,
    archiver: tuple[str, ...] = (),
    state: str = "state",
    above: str = "",
) -> AsyncIterator[Fleet]:
    """A controller over ``root``, until the end of the block."""
    vaults = {region: root / region for region in regions}
    settings = Settings(
        root / state, "test", TOKEN, vaults, heartbeat_s=beat_s, archiver=archiver, above=above
    )
    region = Region.open(settings)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    options = uvicorn.Config(build(region), log_level="warning", log_config=None, timeout_graceful_shutdown=0)
    server = uvicorn.Server(options)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, trust_env=False) as http:
        fleet = Fleet(region, http, url, root)
        try:
            await until(lambda: server.started)
            async with fleet.stack:
                yield fleet
        finally:
            server.should_exit = True
            await serving
