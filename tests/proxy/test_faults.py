"""Proxies are killed and ranks are cut at random moments; results are those of an undisturbed run.

The moments depend on the machine's speed as well as on the seed, so repeat a failure a few times.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from midstep.proxy.errors import DrainTimeout
from tests.proxy.harness import Fleet

PLACEMENT = [[0, 2], [1]]
STEPS, SEED = 25, 1
Disturb = Callable[[Fleet, random.Random], Awaitable[None]]


async def all_killed(fleet: Fleet, rng: random.Random) -> None:
    for index in range(len(fleet.proxies)):
        await fleet.kill_proxy(index)
        await asyncio.sleep(rng.random() * 0.02)
    await fleet.start_proxies()


async def one_killed(fleet: Fleet, rng: random.Random) -> None:
    index = rng.randrange(len(fleet.proxies))
    await fleet.kill_proxy(index)
    await fleet.replace_proxy(index)


async def cut(fleet: Fleet, rng: random.Random) -> None:
    await fleet.cut()


async def cut_given_up(fleet: Fleet, rng: random.Random) -> None:
    await fleet.freeze()
    await asyncio.gather(*(proxy.drain(60) for proxy in fleet.proxies))
    await asyncio.gather(*(proxy.undrain() for proxy in fleet.proxies))
    fleet.thaw()


async def cut_gone_on(fleet: Fleet, rng: random.Random) -> None:
    """A checkpoint: one node goes on, its ranks too, long before the other."""
    await fleet.freeze()
    await asyncio.gather(*(proxy.drain(60) for proxy in fleet.proxies))
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    for index in order:
        await fleet.proxies[index].undrain()
        for rank in PLACEMENT[index]:
            with contextlib.suppress(ProcessLookupError):
                fleet.ranks[rank].send_signal(signal.SIGCONT)
        await asyncio.sleep(rng.random() * 0.1)


async def run(folder: Path, seed: int, disturb: Disturb | None) -> list[Any]:
    folder.mkdir()
    rng = random.Random(seed)
    async with Fleet(folder, PLACEMENT) as fleet:
        await fleet.start_ranks("tests.proxy.programs:disturbed", seed, STEPS)
        await fleet.start_proxies()
        results = asyncio.create_task(fleet.results(120))
        while disturb and fleet.running() and not results.done():
            await asyncio.sleep(rng.random() * 0.15)
            await disturb(fleet, rng)
        return await results


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The results that nobody disturbs."""
    return asyncio.run(run(tmp_path_factory.mktemp("faults") / "calm", SEED, None))


@pytest.mark.parametrize("disturb", [all_killed, one_killed, cut, cut_given_up, cut_gone_on])
async def test_nothing_is_lost_or_done_twice(tmp_path: Path, disturb: Disturb, calm: list[Any]) -> None:
    assert await run(tmp_path / "disturbed", SEED, disturb) == calm


async def test_a_cut_is_given_up_long_before_its_deadline_when_the_other_proxy_is_gone(
    tmp_path: Path,
) -> None:
    done: list[int] = []

    async def once(fleet: Fleet, rng: random.Random) -> None:
        if not done:
            await fleet.freeze()
            await fleet.kill_proxy(1)
            with pytest.raises(DrainTimeout):
                await fleet.proxies[0].drain(3600)
            await fleet.replace_proxy(1)
            fleet.thaw()
            done.append(fleet.epoch)

    calm = await run(tmp_path / "calm", 2, None)
    assert await run(tmp_path / "disturbed", 2, once) == calm
    assert done
