"""torch.distributed over real proxies gives what gloo gives, to the last bit, and more operations than gloo
has.

Each test starts ranks as the agent does (the runtime injected, the environment of torchrun) and proxies for
their nodes. They take some seconds each, because every rank imports torch.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.harness import Job, run_plain, script

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(600)  # more than the runs of a test may take together, so that they say why


async def under_midstep(
    folder: Path, placement: list[list[int]], name: str, *args: Any, **environment: str
) -> list[Any]:
    folder.mkdir(exist_ok=True)
    async with Job(folder, placement) as job:
        job.environment = environment
        return await job.run(script(name), *args, timeout_s=200)


async def over_gloo(folder: Path, size: int, name: str, *args: Any) -> list[Any]:
    folder.mkdir(exist_ok=True)
    return await run_plain(folder, size, script(name), *args, timeout_s=200)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two ranks that train over gloo have."""
    return asyncio.run(over_gloo(tmp_path_factory.mktemp("trained"), 2, "training.py"))


async def test_every_operation_gives_what_gloo_gives(tmp_path: Path) -> None:
    """Types, reduce operations, layouts, sizes, groups, objects, point to point, over two nodes."""
    plain = await over_gloo(tmp_path / "plain", 3, "collectives.py")
    assert await under_midstep(tmp_path / "ours", [[0, 1], [2]], "collectives.py") == plain


async def test_what_nccl_has_and_gloo_has_not(tmp_path: Path) -> None:
    """avg, premul_sum, lists of uneven tensors, split groups; mistakes raise what torch raises. The script
    names nccl."""
    assert await under_midstep(tmp_path, [[0], [1]], "beyond_gloo.py", ASK_FOR="nccl") == ["done"] * 2


@pytest.mark.soak
async def test_a_script_that_names_no_backend_has_it_too(tmp_path: Path) -> None:
    assert await under_midstep(tmp_path, [[0, 1]], "beyond_gloo.py") == ["done"] * 2


async def test_training_has_the_losses_of_gloo_to_the_last_bit(tmp_path: Path, trained: list[Any]) -> None:
    """DDP with its options and hooks, join, ZeRO: two ranks, where a sum has one order."""
    assert await under_midstep(tmp_path / "ours", [[0, 1]], "training.py") == trained


async def test_training_cut_again_and_again_has_the_same_losses(tmp_path: Path, trained: list[Any]) -> None:
    """Every proxy is drained, ended and replaced at arbitrary moments, with the ranks frozen meanwhile."""
    (tmp_path / "ours").mkdir()
    cuts = 0
    async with Job(tmp_path / "ours", [[0], [1]]) as job:
        await job.start_ranks(script("training.py"))
        await job.start_proxies()
        while job.running() and cuts < 15:
            await asyncio.sleep(0.4)
            await job.cut()
            cuts += 1
        assert await job.results(200) == trained
    assert cuts > 3


@pytest.mark.soak
async def test_the_same_with_the_handles_of_an_older_torch(tmp_path: Path) -> None:
    plain = await over_gloo(tmp_path / "plain", 2, "collectives.py")
    assert await under_midstep(tmp_path / "ours", [[0, 1]], "old_torch.py", "collectives.py") == plain
    assert await under_midstep(tmp_path / "more", [[0, 1]], "old_torch.py", "training.py")


@pytest.mark.soak
async def test_sharded_training_and_compiled_collectives(tmp_path: Path) -> None:
    """FSDP1 and 2, DTensor, a pipeline, functional collectives, torch.compile."""
    plain = await over_gloo(tmp_path / "plain", 2, "sharded.py", "compile")
    assert await under_midstep(tmp_path / "ours", [[0], [1]], "sharded.py", "compile") == plain


async def test_the_store_and_repeated_worlds(tmp_path: Path) -> None:
    """Waits, counters, compare-and-set, queues; init by store, address and environment; and no socket is
    open.
    """
    assert await under_midstep(tmp_path, [[0], [1]], "stores.py") == ["done"] * 2
