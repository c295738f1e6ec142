"""What a proxy says of ranks that know nothing of it: steps, memory, what they give to reductions.

Buys: the counts are those of the script itself, whatever it wraps, forks or leaves out.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from midstep.model.usage import NodeUsage, RankUsage
from tests.runtime.harness import Job, script

STEPS = 7
MODEL_BYTES = (300 * 200 + 200) * 4


async def measured(folder: Path, size: int, *options: str) -> tuple[NodeUsage, ...]:
    """A reading when all ranks have made their steps, and the last words after they have ended."""
    last: list[NodeUsage] = []
    async with Job(folder, [list(range(size))]) as job:
        await job.start_ranks(script("metered.py"), STEPS, *options)
        await job.start_proxies()
        proxy = job.proxies[0]
        proxy.on_usage = last.append
        while not all((folder / f"out{rank}").read_text() for rank in range(size)):
            assert job.running(), job.log(0)
            await asyncio.sleep(0.05)
        now = await until_seen(job, size)
        for rank in range(size):
            assert json.loads((folder / f"out{rank}").read_text()) == {"steps": STEPS, "bytes": MODEL_BYTES}
        (folder / "end").touch()
        await job.results(150)
        await proxy.stop()
    assert last[-1].last
    return now, last[-1]


async def until_seen(job: Job, size: int) -> NodeUsage:
    """The scanner may find a page some time after it was made."""
    for _ in range(200):
        usage = await job.proxies[0].measure()
        if len(usage.ranks) == size and all(rank.steps for rank in usage.ranks):
            return usage
        await asyncio.sleep(0.05)
    raise AssertionError(f"no steps were seen: {usage}")


@pytest.mark.parametrize("options", [(), ("wrapped",), ("fork",)], ids=lambda o: "-".join(o) or "plain")
async def test_steps_and_memory_are_the_scripts_own(tmp_path: Path, options: tuple[str, ...]) -> None:
    now, last = await measured(tmp_path, 2, *options)
    for rank in now.ranks:
        assert rank.steps == STEPS
        assert rank.parameters_bytes == rank.gradients_bytes == MODEL_BYTES
        assert rank.optimizer_bytes == 2 * MODEL_BYTES + 2 * 4  # two moments, and a count for each tensor
        assert rank.reduced_bytes == STEPS * MODEL_BYTES
        assert rank.computing_s > 0 and rank.reducing_s > 0
        assert rank.resident_bytes > 3 * MODEL_BYTES
    assert [rank.steps for rank in last.ranks] == [STEPS, STEPS]
    assert [rank.reduced_bytes for rank in last.ranks] == [STEPS * MODEL_BYTES] * 2
    assert now.beats == STEPS - 1  # the first one only shows what there is to count


async def test_a_rank_without_a_process_group_is_counted(tmp_path: Path) -> None:
    now, last = await measured(tmp_path, 1, "alone")
    assert now.ranks[0].steps == last.ranks[0].steps == STEPS
    assert now.ranks[0].parameters_bytes == MODEL_BYTES
    assert now.ranks[0].reduced_bytes == now.beats == 0


async def test_a_new_proxy_finds_the_count(tmp_path: Path) -> None:
    async with Job(tmp_path, [[0]]) as job:
        await job.start_ranks(script("metered.py"), STEPS)
        await job.start_proxies()
        first = await until_counted(job, STEPS)
        await job.kill_proxy(0)
        await job.start_proxies()
        second = await until_counted(job, STEPS)
        assert second.parameters_bytes == first.parameters_bytes == MODEL_BYTES
        assert second.reduced_bytes == 0  # that is the proxy's own count
        (tmp_path / "end").touch()
        await job.results(150)


async def until_counted(job: Job, steps: int) -> RankUsage:
    """Until the rank has made so many."""
    while (usage := (await until_seen(job, 1)).ranks[0]).steps < steps:
        await asyncio.sleep(0.05)
    return usage
