"""An agent without processes: a real WebSocket client that obeys assignments at once, or fails as a test
tells it to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import websockets

from midstep.model.fleet import Device, Node
from midstep.model.phase import CopyState, CopyStatus, Failure, Goal, JobOnNode, Phase, RankStatus, StepTiming
from midstep.vault.snapshots import Part, Snapshots
from midstep.wire.agent import (
    FROM_AGENT,
    TO_AGENT,
    Assignment,
    CopyOrder,
    Desired,
    Hello,
    LogChunk,
    Refused,
    Report,
    Welcome,
)

_REACHED = {
    Goal.HOLD: Phase.HELD,
    Goal.RUN: Phase.RUNNING,
    Goal.DUMP: Phase.DUMPED,
    Goal.GONE: Phase.GONE,
}
_STEPS = {
    Goal.HOLD: ("fetch",),
    Goal.RUN: ("launch",),
    Goal.DUMP: ("freeze", "drain", "dump", "store"),
    Goal.GONE: ("remove",),
}
Fails = Callable[[Assignment], Failure | None]


def node(name: str, region: str = "east", devices: int = 2, device_type: str = "cpu-1c") -> Node:
    """A node with devices of one core each."""
    made = tuple(Device(i, device_type, (i,)) for i in range(devices))
    return Node(name, region, f"addr-{name}", made)


class FakeAgent:
    """One node. ``fails`` may answer an assignment with a failure; ``obeys`` False: it reports nothing
    new."""

    def __init__(self, url: str, token: str, node: Node, vault: Path, fails: Fails = lambda _: None) -> None:
        self.url, self.token, self.node, self.fails = url, token, node, fails
        self.vault = Snapshots(vault)
        self.jobs: dict[str, JobOnNode] = {}
        self.brings = False  # it says that snapshots of other regions have come at once
        self.copied: list[str] = []  # snapshots that it was to bring into its region
        self._copies: tuple[CopyStatus, ...] = ()
        self._reached: set[tuple[object, ...]] = set()
        self.history: list[tuple[str, int, Goal]] = []  # what was asked, once each
        self.wanted: dict[str, Assignment] = {}
        self.refused: str | None = None
        self.obeys = True
        self._socket: websockets.ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FakeAgent:
        self._task = asyncio.create_task(self._forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Die: the connection closes."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def finish(self, job_id: str, codes: dict[int, int], last_lines: tuple[str, ...] = ()) -> None:
        """Ranks of a running job end."""
        job = self.jobs[job_id]
        ranks = tuple(
            replace(r, exit_code=codes.get(r.rank, r.exit_code), last_lines=last_lines) for r in job.ranks
        )
        await self.change(replace(job, ranks=ranks))

    async def change(self, job: JobOnNode) -> None:
        """Report something."""
        self.jobs[job.job_id] = job
        await self.report()

    async def write_log(self, job_id: str, rank: int, offset: int, data: bytes) -> None:
        """Send a piece of a log."""
        await self._send(LogChunk(job_id, rank, offset, base64.b64encode(data).decode()))

    async def report(self) -> None:
        """Say everything."""
        await self._send(Report(tuple(self.jobs.values()), self._copies))

    async def _send(self, message: Hello | Report | LogChunk) -> None:
        if self._socket is not None:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._socket.send(FROM_AGENT.dump_json(message).decode())

    async def _forever(self) -> None:
        while self.refused is None:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                async with websockets.connect(self.url, proxy=None) as self._socket:
                    await self._talk(self._socket)
            self._socket = None
            await asyncio.sleep(0.05)

    async def _talk(self, socket: websockets.ClientConnection) -> None:
        await self._send(Hello(self.node, self.token))
        beat: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                match TO_AGENT.validate_json(text):
                    case Welcome(heartbeat_s=heartbeat_s):
                        beat = asyncio.create_task(self._beat(heartbeat_s))
                    case Refused(message):
                        self.refused = message
                    case Desired(assignments, copies):
                        self._bring(copies)
                        await self._obey(assignments)
        finally:
            if beat is not None:
                beat.cancel()

    async def _beat(self, every_s: float) -> None:
        while True:
            await self.report()
            await asyncio.sleep(every_s)

    def _bring(self, copies: tuple[CopyOrder, ...]) -> None:
        names = [(order.job_id, order.source.snapshot_id) for order in copies] if self.brings else []
        self.copied += [name for _, name in names if name not in self.copied]
        self._copies = tuple(CopyStatus(*name, CopyState.DONE, 7) for name in names)

    async def _obey(self, assignments: tuple[Assignment, ...]) -> None:
        self.wanted = {a.job_id: a for a in assignments}
        for job_id, job in list(self.jobs.items()):
            if job_id not in self.wanted and job.phase is Phase.GONE:
                del self.jobs[job_id]
        for wanted in assignments if self.obeys else ():
            key = (wanted.job_id, wanted.epoch, wanted.goal)
            if (*key, wanted.target) in self._reached:
                continue
            self._reached.add((*key, wanted.target))  # checkpoints repeat goals under one epoch
            if key not in self.history:
                self.history.append(key)
            self._reach(wanted)
        await self.report()

    def _reach(self, wanted: Assignment) -> None:
        before = self.jobs.get(wanted.job_id)
        if before is not None and before.epoch > wanted.epoch:
            return
        ranks = tuple(RankStatus(r.rank) for r in wanted.place.ranks)
        if before is not None and wanted.source is None and wanted.goal is not Goal.GONE:
            known = {r.rank: r for r in before.ranks}
            ranks = tuple(known.get(r.rank, r) for r in ranks)
        steps = tuple(StepTiming(name, 0.01 + len(self.history) / 1000, 100) for name in _STEPS[wanted.goal])
        failure = self.fails(wanted)
        phase = Phase.FAILED if failure else _REACHED[wanted.goal]
        report = JobOnNode(wanted.job_id, wanted.epoch, phase, 5000, ranks, failure, steps)
        if phase is Phase.DUMPED and wanted.target is not None:
            store = self._dump(wanted, wanted.target)
            report = replace(report, store=store, nbytes=3, target=wanted.target)
        if phase is Phase.RUNNING:
            report = replace(report, stored=wanted.target)
        self.jobs[wanted.job_id] = report

    def _dump(self, wanted: Assignment, target: str) -> dict[str, str]:
        place = wanted.place
        homes = tuple(sorted({r.home for r in place.ranks}))
        files: dict[str, int] = {}
        if not self.vault.exists(target):
            stage = self.vault.stage(target)
            for home in homes:
                (stage / f"home-{home}" / "work").mkdir(parents=True, exist_ok=True)
                (stage / f"home-{home}" / "work" / "out.txt").write_text("abc")
                files[f"home-{home}/work/out.txt"] = 3
            ranks = tuple(r.rank for r in place.ranks)
            self.vault.put_part(target, Part(place.index, ranks, homes, 3, files))
        return {"key": "dmFsdWU="} if place.index == 0 else {}
