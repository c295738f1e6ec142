"""Ranks of one device take turns: no script hangs, and what comes out is what comes out without turns."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from midstep.proxy.seats import RankCounters
from tests.runtime.harness import Job, script

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(400)


class OneCore(Job):
    """A job whose ranks and proxy share one core."""

    async def start_ranks(self, target: str, *args: Any) -> None:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(allowed)})
        try:
            await super().start_ranks(target, *args)
        finally:
            os.sched_setaffinity(0, allowed)


async def run(folder: Path, placement: list[list[int]], devices: dict[int, tuple[int, ...]]) -> list[Any]:
    folder.mkdir()
    async with OneCore(folder, placement) as job:
        job.devices = devices
        return await job.run(script("turns.py"), timeout_s=180)


async def test_every_way_of_waiting_ends_and_gives_the_same(tmp_path: Path) -> None:
    """File barriers (asleep and spinning), user locks, threads, a rank that only reads, uneven work, and so
    on, on one core: three ranks of one device; four of two devices."""
    plain = await run(tmp_path / "plain", [[0, 1, 2]], {})
    assert await run(tmp_path / "turns", [[0, 1, 2]], dict.fromkeys(range(3), (0,))) == plain


async def test_ranks_that_take_turns_have_no_thread_of_ours(tmp_path: Path) -> None:
    """The C library works without locks in a process of one thread."""
    async with OneCore(tmp_path, [[0, 1, 2]]) as job:
        job.devices, job.environment = dict.fromkeys(range(3), (0,)), {"CASES": "threads"}
        results = await job.run(script("turns.py"), timeout_s=180)
    assert results == [{"threads": ["MainThread"]}] * 3


@pytest.mark.soak
async def test_two_devices_of_two_nodes(tmp_path: Path) -> None:
    plain = await run(tmp_path / "plain", [[0, 1, 2, 3]], {})
    devices = {0: (0,), 1: (0,), 2: (1,), 3: (1,)}
    assert await run(tmp_path / "turns", [[0, 1], [2, 3]], devices) == plain


@pytest.mark.soak
async def test_ranks_take_turns_and_go_on_after_cuts_and_lost_proxies(tmp_path: Path) -> None:
    """Cut with the lease held by whoever holds it, and a proxy killed with ranks behind the gate."""
    plain = await run(tmp_path / "plain", [[0, 1]], {})
    folder = tmp_path / "turns"
    folder.mkdir()
    turns = 0
    async with OneCore(folder, [[0, 1]]) as job:
        job.devices = {0: (0,), 1: (0,)}
        await job.start_ranks(script("turns.py"))
        await job.start_proxies()
        for number in range(100):
            if not job.running():
                break
            await asyncio.sleep(0.4)
            turns = max([turns, *[rank.turns for rank in await shares(job)]])
            if number % 3 == 2:
                await job.cut()
            elif number % 3 == 1:
                await job.kill_proxy(0)
                await job.start_proxies()
        assert await job.results(180) == plain
    assert turns > 2


async def shares(job: Job) -> tuple[RankCounters, ...]:
    return (await job.proxies[0].status()).ranks if job.running() else ()
