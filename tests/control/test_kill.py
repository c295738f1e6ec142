"""A real controller process, killed (-9) at random moments while jobs are submitted, suspended, resumed and
moved: what it answered is still true, and everything converges. It buys: the journal, the recovery, and the
agents' reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from midstep.model.phase import Goal, Phase
from tests.control.fake_agent import FakeAgent, node
from tests.control.harness import HEADERS, TOKEN

KILLS = 6


class Process:
    """The controller as a process on a fixed port."""

    def __init__(self, root: Path) -> None:
        # Held while no controller listens: nothing else (a client's own end included) gets the number.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.config = root / "controller.json"
        regions = {"east": str(root / "east"), "west": str(root / "west")}
        values = {"state_dir": str(root / "state"), "fleet": "t", "token": TOKEN, "host": "127.0.0.1"}
        self.config.write_text(
            json.dumps({**values, "port": self.port, "regions": regions, "heartbeat_s": 0.2})
        )
        self.log = root / "controller.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "midstep.app.controller",
                "--config",
                str(self.config),
                stderr=log,
                stdout=log,
            )

    def remove(self) -> None:
        """Leave no process behind, whatever became of the test."""
        self._held.close()
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.process.wait()


async def ask(http: httpx.AsyncClient, method: str, path: str, **body: Any) -> httpx.Response:
    """Ask until somebody answers."""
    for _ in range(600):
        try:
            return await http.request(method, path, json=body or None)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
    raise AssertionError("the controller never came back")


async def state(http: httpx.AsyncClient, job: str, *wanted: str) -> str:
    """Wait for a state."""
    found = ""
    for _ in range(600):
        found = (await ask(http, "GET", f"/v1/jobs/{job}")).json()["state"]
        if found in wanted:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(
        f"{job} is {found}, not {wanted}: {(await ask(http, 'GET', f'/v1/jobs/{job}')).text}"
    )


async def live(http: httpx.AsyncClient, job: str, chance: random.Random) -> None:
    """A user who never stops changing their mind. Every answer is kept to."""
    while True:
        verb = chance.choice(["suspend", "resume", "migrate"])
        body = {"to": chance.choice(["east", "west", "e1", "w1"])} if verb == "migrate" else {}
        response = await ask(http, "POST", f"/v1/jobs/{job}/{verb}", **body)
        assert response.status_code in (202, 409, 422), response.text
        await asyncio.sleep(chance.uniform(0, 0.3))


@pytest.mark.timeout(240)
async def test_killed_at_random_moments(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"repeat with SEED={seed}")
    chance = random.Random(seed)
    controller = Process(tmp_path)
    await controller.start()
    agents = [
        FakeAgent(
            controller.url.replace("http", "ws") + "/v1/agents", TOKEN, node(name, region), tmp_path / region
        )
        for name, region in (("e1", "east"), ("e2", "east"), ("w1", "west"), ("w2", "west"))
    ]
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(controller.remove)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=controller.url, headers=HEADERS, trust_env=False, timeout=20)
        )
        for agent in agents:
            agent.brings = True  # else what is copied ahead holds its devices for minutes
            await stack.enter_async_context(agent)
        jobs = [
            (await ask(http, "POST", "/v1/jobs", command=["x"], devices=n)).json()["job_id"]
            for n in (1, 2, 3)
        ]
        users = [asyncio.create_task(live(http, job, random.Random(chance.random()))) for job in jobs]
        for _ in range(KILLS):
            await ask(http, "GET", "/v1/health")
            await asyncio.sleep(chance.uniform(0, 1.0))
            await controller.end(signal.SIGKILL)
            await controller.start()
        for user in users:
            user.cancel()
        for result in await asyncio.gather(*users, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
        await _all_can_run_and_end(http, jobs)
        async with asyncio.timeout(60):  # snapshots are removed when later ones are on disk
            while any(agent.vault.ids() for agent in agents):
                await asyncio.sleep(0.1)
        assert await controller.end(signal.SIGTERM) == 0
    for agent in agents:
        _check_epochs(agent)
        assert all(job.phase is Phase.GONE for job in agent.jobs.values())
    log = controller.log.read_text()
    assert "Traceback" not in log and "not permitted" not in log, log


async def _all_can_run_and_end(http: httpx.AsyncClient, jobs: list[str]) -> None:
    for job in jobs:
        await state(http, job, "running", "suspended", "queued")
        await ask(http, "POST", f"/v1/jobs/{job}/resume")
        await state(http, job, "running")
    for job in jobs:
        assert (await ask(http, "POST", f"/v1/jobs/{job}/cancel")).status_code == 202
    for job in jobs:
        assert await state(http, job, "cancelled") == "cancelled"


def _check_epochs(agent: FakeAgent) -> None:
    """What an agent was asked, under growing epochs only; under one epoch nothing is held after it ran."""
    epochs: dict[str, int] = {}
    for job, epoch, _ in agent.history:
        assert epoch >= epochs.get(job, 0)
        epochs[job] = epoch
    for job, epoch, goal in agent.history:
        if goal is Goal.RUN:
            assert (job, epoch, Goal.HOLD) in agent.history


async def test_bad_configurations_are_explained(tmp_path: Path) -> None:
    good = {"state_dir": str(tmp_path / "s"), "fleet": "f", "token": "t", "host": "127.0.0.1", "port": 0}
    cases: list[tuple[str, str]] = [
        ("no json", "is not a controller's configuration"),
        (json.dumps(good), "regions: Field required"),
        (json.dumps({**good, "regions": {}}), "at least one region"),
        (json.dumps({**good, "regions": {"e": "/dev/null/x"}}), "cannot use"),
        (
            json.dumps({**good, "regions": {"e": str(tmp_path / "e")}, "host": "203.0.113.1"}),
            "cannot listen on",
        ),
    ]
    for text, words in cases:
        (tmp_path / "c.json").write_text(text)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "midstep.app.controller",
            "--config",
            str(tmp_path / "c.json"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode in (2, 3) and words in said.decode() and "Traceback" not in said.decode(), (
            said
        )


async def test_a_second_controller_on_the_same_state_is_refused(tmp_path: Path) -> None:
    first = Process(tmp_path)
    await first.start()
    with contextlib.ExitStack() as stack:
        stack.callback(first.remove)
        await _refuses_a_second(first)


async def _refuses_a_second(first: Process) -> None:
    async with httpx.AsyncClient(base_url=first.url, headers=HEADERS, trust_env=False) as http:
        assert (await ask(http, "GET", "/v1/health")).status_code == 200
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "midstep.app.controller",
            "--config",
            str(first.config),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 2 and b"another controller runs on" in said
    assert await first.end(signal.SIGTERM) == 0
