"""The controllers of two regions and the global one above them, in this process, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from midstep.api.federation import build
from midstep.federation import members
from midstep.federation.centre import Centre, Settings
from midstep.model.fleet import Node
from tests.control import harness
from tests.control.fake_agent import FakeAgent
from tests.control.harness import HEADERS, TOKEN, Fleet

ROUNDS = 800


class Line:
    """A way to a region's controller that can be cut: connections are carried on, or closed."""

    def __init__(self, port: int) -> None:
        self._port, self.cut = port, False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def url(self) -> str:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self.break_off()
        self._server.close()

    def break_off(self) -> None:
        """Nothing goes through any more, nor does what is on its way."""
        self.cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        with contextlib.suppress(OSError):
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        self._writers -= {writer, back}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@dataclass
class Federation:
    """What a test talks to."""

    root: Path
    listener: socket.socket
    http: httpx.AsyncClient
    regions: dict[str, Fleet] = field(default_factory=dict[str, Fleet])
    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    centre: Centre | None = None
    _server: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = None

    async def start(self, wait: bool = True) -> Centre:
        """The global controller; ``wait``: until it has heard of all regions."""
        urls = {name: await line.url() for name, line in self.lines.items()}
        self.centre = Centre.open(Settings(self.root / "global", "test", TOKEN, urls, "1", patience_s=0.2))
        options = uvicorn.Config(
            build(self.centre), log_level="warning", log_config=None, timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(options)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self.listener.dup()]))
        await harness.until(lambda: self._server is not None and self._server.started)
        if wait:
            await harness.until(lambda: self.centre is not None and not self.centre.members.cut_off)
        return self.centre

    async def stop(self) -> None:
        """It ends, be it in the middle of anything."""
        assert self._server is not None and self._serving is not None
        self._server.should_exit = True
        await self._serving

    async def add(self, node: Node) -> FakeAgent:
        """Connect a node to its region's controller, and wait until it is known above."""
        agent = await self.regions[node.region].add(node)
        agent.brings = True
        await self.until_known(node.name)
        return agent

    async def until_known(self, node: str) -> None:
        centre = self.centre
        assert centre is not None

        def known() -> bool:
            member = centre.members.of_node(node)
            return member is not None and bool(member.told and member.told.clusters)

        await harness.until(known)

    async def submit(self, **fields: Any) -> str:
        """A job; its id."""
        body = {"command": ("python", "train.py"), **fields}
        response = await self.http.post("/v1/jobs", json=body)
        assert response.status_code == 201, response.text
        return response.json()["job_id"]

    async def job(self, job_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, job_id: str, verb: str, status: int = 202, **body: Any) -> dict[str, Any]:
        response = await self.http.post(f"/v1/jobs/{job_id}/{verb}", json=body or None)
        assert response.status_code == status, response.text
        return response.json()

    async def reaches(self, job_id: str, *states: str, region: str = "") -> dict[str, Any]:
        """Wait for a state (in a region)."""
        view: dict[str, Any] = {}
        for _ in range(ROUNDS):
            response = await self.http.get(f"/v1/jobs/{job_id}")
            if response.status_code == 200:
                view = response.json()
                if view["state"] in states and region in ("", view["region"]):
                    return view
            await asyncio.sleep(0.02)
        raise AssertionError(f"{job_id} never was {states} {region}: {view or response.text}")

    def owners(self, job_id: str) -> list[str]:
        """The regions whose controllers would decide about the job."""
        found = [(name, fleet.region.service.records.get(job_id)) for name, fleet in self.regions.items()]
        return [name for name, record in found if record is not None and not record.away]


@contextlib.asynccontextmanager
async def federation(
    root: Path, regions: tuple[str, ...] = ("east", "west"), archiver: tuple[str, ...] = ()
) -> AsyncIterator[Federation]:
    """All of it, until the end of the block. Regions tell more often than they do otherwise."""
    members.TELL_EVERY_S = 0.1
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, headers=HEADERS, trust_env=False, timeout=30)
        )
        fed = Federation(root, listener, http)
        for name in regions:
            one = harness.running(root, (name,), archiver=archiver, state=f"state-{name}", above=url)
            fleet = fed.regions[name] = await stack.enter_async_context(one)
            fed.lines[name] = Line(httpx.URL(fleet.url).port or 0)
            stack.push_async_callback(fed.lines[name].close)
        await fed.start()
        stack.push_async_callback(fed.stop)
        yield fed
    listener.close()
