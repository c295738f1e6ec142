"""A controller for one test, and nodes that are really apart: agents in mount namespaces of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import midstep
from midstep.agent.install.criu_find import find_criu
from midstep.model.fleet import Device
from midstep.model.job import JobSpec, NodePlace, RankPlace, SnapshotRef
from midstep.model.phase import Goal, JobOnNode, Phase
from midstep.vault.archive.manifest import encode
from midstep.vault.archive.shipping import frames, split_ids
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import (
    FROM_AGENT,
    TO_AGENT,
    Assignment,
    Desired,
    Hello,
    LogChunk,
    PeerAddress,
    Report,
    Welcome,
)

TOKEN = "secret"
_FURNISH = """
mount --make-rprivate / && mkdir -p /run/midstep && mount -t tmpfs none /run/midstep &&
mkdir /run/midstep/node /run/midstep/vault /run/midstep/cell && mount --bind "$1" /run/midstep/node &&
mount --bind "$2" /run/midstep/vault && echo ready && exec sleep infinity
"""


class Controller:
    """Says what it is told to say; remembers what it hears."""

    def __init__(self, vaults: dict[str, Path]) -> None:
        self.reports: dict[str, dict[str, JobOnNode]] = {}
        self.logs: dict[tuple[str, int], bytearray] = defaultdict(bytearray)
        self.rewinds: list[tuple[str, int, int, int]] = []  # job, rank, from, to
        self.blobs: dict[str, bytes] = {}
        self.fetches: list[str] = []
        self.port = 0
        self._wanted: dict[str, dict[str, Assignment]] = defaultdict(dict)
        self._sessions: dict[str, WebSocket] = {}
        self._vaults = vaults
        self._news = asyncio.Event()
        self._server: uvicorn.Server | None = None

    async def start(self) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        routes = [
            WebSocketRoute("/v1/agents", self._serve),
            Route("/v1/internal/blobs/{blob}", self._blob),
            Route("/v1/internal/vault/{region}/{snapshot}", self._manifest),
            Route("/v1/internal/vault/{region}/chunks", self._chunks, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        config = uvicorn.Config(app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        await self._task

    async def want(self, node: str, *assignments: Assignment) -> None:
        for a in assignments:
            self._wanted[node][a.job_id] = a
        await self._tell(node)

    async def forget(self, node: str, job: str) -> None:
        self._wanted[node].pop(job, None)
        await self._tell(node)

    async def until(
        self, node: str, job: str, epoch: int, *phases: Phase, timeout_s: float = 60
    ) -> JobOnNode:
        """Wait until a node reports one of these phases."""

        def there() -> JobOnNode | None:
            found = self.reports.get(node, {}).get(job)
            return found if found and found.epoch == epoch and found.phase in phases else None

        what = lambda: f"{job}@{node}: {self.reports.get(node, {}).get(job)}"  # noqa: E731
        return await self.until_true(there, what, timeout_s)

    async def until_exit(self, node: str, job: str, rank: int = 0, timeout_s: float = 60) -> int:
        def there() -> tuple[int] | None:
            found = self.reports.get(node, {}).get(job)
            codes = [r.exit_code for r in found.ranks if r.rank == rank] if found else []
            return (codes[0],) if codes and codes[0] is not None else None

        return (await self.until_true(there, lambda: f"{job} rank {rank}", timeout_s))[0]

    async def until_true(self, there: Callable, what: Callable[[], str], timeout_s: float = 60):
        end = asyncio.get_running_loop().time() + timeout_s
        while not (found := there()):
            self._news.clear()
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                raise AssertionError(f"not within {timeout_s} s: {what()}")
            try:
                await asyncio.wait_for(self._news.wait(), min(left, 0.5))
            except TimeoutError:
                pass
        return found

    def lines(self, job: str, rank: int = 0) -> list[str]:
        return self.logs[job, rank].decode().splitlines()

    async def _tell(self, node: str) -> None:
        if node not in self._sessions:
            return
        named = []
        for a in self._wanted[node].values():
            has = {r.rank: len(self.logs[a.job_id, r.rank]) for r in a.place.ranks}
            named.append(replace(a, log_bytes=has))
        await self._sessions[node].send_text(TO_AGENT.dump_json(Desired(tuple(named))).decode())

    async def _serve(self, connection: WebSocket) -> None:
        assert connection.headers["authorization"] == f"Bearer {TOKEN}"
        await connection.accept()
        hello = FROM_AGENT.validate_json(await connection.receive_text())
        assert isinstance(hello, Hello) and hello.token == TOKEN
        name = hello.node.name
        await connection.send_text(TO_AGENT.dump_json(Welcome("test", heartbeat_s=0.5, stall_s=1.0)).decode())
        self._sessions[name] = connection
        await self._tell(name)
        try:
            async for raw in connection.iter_text():
                self._hear(name, FROM_AGENT.validate_json(raw))
        finally:
            if self._sessions.get(name) is connection:
                del self._sessions[name]
                self.reports.pop(name, None)
            self._news.set()

    def _hear(self, node: str, message: Hello | Report | LogChunk) -> None:
        if isinstance(message, Report):
            self.reports[node] = {job.job_id: job for job in message.jobs}
        elif isinstance(message, LogChunk):
            log = self.logs[message.job_id, message.rank]
            assert message.offset <= len(log), "a gap in a log"
            if message.offset < len(log):
                self.rewinds.append((message.job_id, message.rank, len(log), message.offset))
            del log[message.offset :]
            log += base64.b64decode(message.data)
        self._news.set()

    async def _blob(self, request: Request) -> Response:
        self.fetches.append(request.url.path)
        body = self.blobs.get(request.path_params["blob"])
        return Response(body) if body is not None else Response("no such blob", 404)

    async def _manifest(self, request: Request) -> Response:
        self.fetches.append(request.url.path)
        region, name = request.path_params["region"], request.path_params["snapshot"]
        return Response(await asyncio.to_thread(_archived, self._vaults[region], name))

    async def _chunks(self, request: Request) -> Response:
        archive = Snapshots(self._vaults[request.path_params["region"]]).archive()
        assert archive is not None
        return StreamingResponse(frames(archive, split_ids(await request.body())))


def _archived(root: Path, name: str) -> bytes:
    vault = Snapshots(root)
    archive = vault.archive(create=True)
    assert archive is not None
    if not archive.exists(name):
        archive.store(vault.path(name), vault.verify(name), 0)
    return encode(archive.load(name))


class NodeBox:
    """One node: its own folder under the path that all nodes use, an agent that may be killed and started."""

    def __init__(self, name: str, region: str, root: Path, vault: Path, port: int, criu: Path | None) -> None:
        self.name, self.region = name, region
        self.state = root / name
        self.state.mkdir()
        vault.mkdir(exist_ok=True)
        self._config = {
            "name": name,
            "region": region,
            "address": "127.0.0.1",
            "devices": [asdict(Device(0, "cpu-1c", tuple(sorted(os.sched_getaffinity(0)))))],
            "controller": f"http://127.0.0.1:{port}",
            "token": TOKEN,
            "state_dir": "/run/midstep/node",
            "vault_dir": "/run/midstep/vault",
            "inject": str(Path(midstep.__path__[0]) / "runtime" / "inject"),
            "criu": str(criu) if criu else None,
            "passthrough": [root.parts[2]] if root.parts[1] == "tmp" else [],
        }
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _FURNISH, "sh", str(self.state), str(vault)], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"ready\n"
        self._agent: subprocess.Popen[bytes] | None = None

    def start(self, crash_at: str = "") -> None:
        config = self.state / "agent.json"
        config.write_text(json.dumps({**self._config, "crash_at": crash_at}))
        command = [sys.executable, "-m", "midstep.app.agent", "--config", "/run/midstep/node/agent.json"]
        source = str(Path(midstep.__path__[0]).parent)
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
        with (self.state / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(
                ["nsenter", "-t", str(self._holder.pid), "-m", "--", *command],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self._agent is not None
        self._agent.kill()
        self._agent.wait()

    def stop(self) -> None:
        """Let the agent stand still, as on a machine that is too busy."""
        assert self._agent is not None
        self._agent.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._agent is not None
        self._agent.send_signal(signal.SIGCONT)

    async def died(self, timeout_s: float = 60) -> int:
        """Wait for the agent to end by itself; its return code."""
        assert self._agent is not None
        return await asyncio.to_thread(self._agent.wait, timeout_s)

    def words(self) -> str:
        log = self.state / "agent.log"
        return log.read_text() if log.exists() else ""

    def jobs(self) -> list[str]:
        folder = self.state / "jobs"
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []

    def close(self) -> None:
        """Kill everything that lives in the node's mounts or in copies of them."""
        if self._agent is not None:
            self.kill()
        for _ in range(3):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if os.path.samefile(f"/proc/{pid}/root/run/midstep/node", self.state):
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    continue
        self._holder.wait()
        shutil.rmtree(self.state, ignore_errors=True)


def criu() -> Path | None:
    """The CRIU of this machine; None: there is none, and what needs it is skipped."""
    found = find_criu()
    return found.path if found is not None else None


def assignment(job: str, epoch: int, goal: Goal, spec: JobSpec, node: str, **more: object) -> Assignment:
    """All ranks of a job on one node."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    n = spec.world_size
    ranks = tuple(RankPlace(r, 0, r, n, (0,), cpus[r % len(cpus) :][:1]) for r in range(n))
    place = NodePlace(node, 0, ranks)
    return Assignment(job, epoch, goal, spec, place, **more)  # type: ignore[arg-type]


def peers(node: JobOnNode, world_size: int) -> tuple[PeerAddress, ...]:
    return (PeerAddress(0, "127.0.0.1", node.proxy_port, tuple(range(world_size))),)


__all__ = ["Controller", "NodeBox", "SnapshotRef", "assignment", "criu", "peers"]
