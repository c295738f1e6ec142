"""The agent's side of a proxy, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from midstep.model.usage import NodeUsage
from midstep.proxy.config import ProxyConfig, to_line
from midstep.proxy.errors import DrainTimeout, ProxyError, ProxyGone
from midstep.proxy.metering import usage_from
from midstep.proxy.peers import Peer
from midstep.proxy.report import Drained, ProxyStatus, drained_from, status_from
from midstep.proxy.zygote import Zygote

_LINE_BYTES = 1 << 30  # the store's content travels in one line
_START_S = 60.0


class ProxyHandle:
    """A running proxy. ``closed`` is set when its process ends, however it does; ``on_usage`` hears what the
    ranks have done up to a cut, or to the proxy's end."""

    def __init__(
        self, config: ProxyConfig, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.config = config
        self.port = 0
        self.pid = 0
        self.closed = asyncio.Event()
        self.on_usage: Callable[[NodeUsage], None] | None = None
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, config: ProxyConfig, zygote: Zygote | None = None) -> ProxyHandle:
        """Start a proxy; returns when it listens. Raises ProxyError."""
        ours, theirs = socket.socketpair()
        process = None
        try:
            if zygote is not None:
                zygote.fork(theirs)
            else:
                command = [sys.executable, "-m", "midstep.proxy", str(theirs.fileno())]
                process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        handle = cls(config, reader, writer)
        handle._process = process
        writer.write(to_line(config))
        try:
            first = await asyncio.wait_for(reader.readline(), _START_S)
        except TimeoutError:
            first = b""
        if not first:
            writer.close()
            raise ProxyError(f"the proxy of job {config.job_id} did not start")
        answer = json.loads(first)
        handle.port, handle.pid = answer["port"], answer["pid"]
        handle._task = asyncio.create_task(handle._listen())
        return handle

    async def add_rank(self, rank: int, init_pid: int) -> None:
        """Serve the mailboxes of a rank's process tree, whose root is ``init_pid``; they are scanned on
        return."""
        await self._ask("add_rank", rank=rank, pid=init_pid)

    async def connect(
        self, peers: Sequence[Peer], deadline_s: float = 30.0, ended: Sequence[int] = ()
    ) -> None:
        """Say who the job's nodes are (this one may be among them), and which ranks of this node have ended
        before; returns when all are connected."""
        nodes = [asdict(peer) for peer in peers]
        await self._ask("connect", peers=nodes, ended=list(ended), deadline_s=deadline_s)

    async def drain(self, deadline_s: float) -> Drained:
        """Take this node's part of a cut, with its ranks frozen. Afterwards the proxy touches nothing.

        Raises DrainTimeout, and then goes on as before.
        """
        answer = await self._ask("drain", deadline_s=deadline_s)
        self._hear_usage(answer)
        return drained_from(answer)

    async def undrain(self) -> None:
        """Go on as if ``drain`` had not been called: the cut was given up, or all of it is safe. Every proxy
        of the job has to, sooner or later."""
        await self._ask("undrain")

    async def status(self) -> ProxyStatus:
        """What is pending, and the counters."""
        return status_from(await self._ask("status"))

    async def measure(self) -> NodeUsage:
        """What the ranks have done."""
        return self._usage(await self._ask("measure"))

    async def stop(self) -> None:
        """End the proxy; does nothing when it has ended."""
        with contextlib.suppress(ProxyError, TimeoutError):
            self._hear_usage(await asyncio.wait_for(self._ask("stop"), 2.0))
        self._writer.close()
        if not self.closed.is_set():
            try:
                await asyncio.wait_for(self.closed.wait(), 2.0)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def _usage(self, answer: dict[str, Any]) -> NodeUsage:
        return usage_from(answer["usage"], self.config, self.pid)

    def _hear_usage(self, answer: dict[str, Any]) -> None:
        if self.on_usage is not None:
            self.on_usage(self._usage(answer))

    async def _ask(self, what: str, **values: Any) -> dict[str, Any]:
        if self.closed.is_set():
            raise ProxyGone(f"{what}: the proxy of job {self.config.job_id} has ended")
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(json.dumps({"id": number, "do": what, **values}).encode() + b"\n")
            answer = await future
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            kind = DrainTimeout if answer["kind"] == "DrainTimeout" else ProxyError
            raise kind(f"{what}: {answer['error']}")
        del answer["id"], answer["ok"]
        return answer

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while line := await self._reader.readline():
                answer = json.loads(line)
                future = self._waiting.get(answer["id"])
                if future is not None and not future.done():
                    future.set_result(answer)
        self.closed.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ProxyGone(f"the proxy of job {self.config.job_id} has ended"))
