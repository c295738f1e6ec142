"""Members that contradict each other, members that end, members that come late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from midstep.proxy.errors import ProxyError
from midstep.proxy.peers import Peer
from tests.proxy.harness import Fleet

PROGRAMS = "tests.proxy.programs"


@pytest.mark.parametrize("placement", [[[0, 1, 2]], [[0, 2], [1]], [[0, 1], [2]]], ids=str)
async def test_a_contradiction_fails_every_rank_and_says_who_posted_what(
    tmp_path: Path, placement: list[list[int]]
) -> None:
    whats = ("kind", "count", "dtype", "large")
    async with Fleet(tmp_path, placement) as fleet:
        said = await fleet.run(f"{PROGRAMS}:refused", *whats)
    for what, *texts in zip(whats, *said):
        assert all("the ranks do not agree" in text for text in texts), what
        named = ("rank 2: ", "ranks 0, 2: ", "ranks 0, 1: ")
        assert all(any(name in text for name in named) for text in texts), what


async def test_a_reduction_that_is_not_defined(tmp_path: Path) -> None:
    async with Fleet(tmp_path, [[0], [1]]) as fleet:
        said = await fleet.run(f"{PROGRAMS}:refused", "undefined")
    assert all("BXOR is not defined for float32" in text for (text,) in said)


@pytest.mark.parametrize("placement", [[[0, 1]], [[0], [1]]], ids=str)
@pytest.mark.parametrize("how, text", [("exits", "its process"), ("closes", "it has closed the group")])
async def test_a_rank_that_left_fails_what_waits_for_it(
    tmp_path: Path, placement: list[list[int]], how: str, text: str
) -> None:
    async with Fleet(tmp_path, placement) as fleet:
        texts = await fleet.run(f"{PROGRAMS}:leaves_early", how)
    assert f"rank 1 cannot take part: {text}" in texts[0]


async def test_a_hang_is_named(tmp_path: Path) -> None:
    async with Fleet(tmp_path, [[0, 2], [1]]) as fleet:
        await fleet.start_ranks(f"{PROGRAMS}:forgets")
        await fleet.start_proxies()
        while not (found := [op for op in (await fleet.proxies[0].status()).pending if op.missing]):
            await asyncio.sleep(0.01)
        assert found[0].posted in ((0,), (0, 1)) and found[0].missing == (2,)
        assert found[0].kind == "ALLREDUCE" and found[0].count_bytes == 40 and found[0].dtype == "float32"
        drained = await fleet.cut()
        assert any(op.missing == (2,) for op in drained[0].pending)
        assert all(not proxy.closed.is_set() for proxy in fleet.proxies)
        fleet.store["go"] = b"1"
        await fleet.kill_proxy(0)
        await fleet.kill_proxy(1)
        await fleet.start_proxies()  # the next leader begins with the store it is given
        assert await fleet.results() == [True, True, True]


async def test_a_proxy_of_an_older_epoch_is_refused(tmp_path: Path) -> None:
    async with Fleet(tmp_path, [[0], [1]]) as fleet:
        await fleet.start_ranks(f"{PROGRAMS}:sums", 10, 2)
        await fleet.start_proxies()
        old = fleet.proxies[1]
        await fleet.kill_proxy(0)
        fleet.epoch += 1
        fleet.proxies[0] = await fleet._proxy(0)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ProxyError, match=r"no connection to the proxies of nodes \[0\]"):
            await old.connect([Peer(0, "127.0.0.1", fleet.proxies[0].port, (0,), True)], 1.0)
