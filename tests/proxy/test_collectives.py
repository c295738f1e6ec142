"""Every kind of operation between real processes and proxies, at several sizes of world and placements."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy.harness import Fleet

PROGRAMS = "tests.proxy.programs"
PLACEMENTS = [
    [[0]],
    [[0, 1]],
    [[0], [1]],
    [[0, 2], [1]],
    [[0], [1], [2]],
    [[1], [2, 0, 3]],
    [[0, 3], [1], [2, 4]],
]


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
async def test_every_kind_against_numpy(tmp_path: Path, placement: list[list[int]]) -> None:
    async with Fleet(tmp_path, placement) as fleet:
        assert all(await fleet.run(f"{PROGRAMS}:every_kind", 0, 7, 50_000))


@pytest.mark.parametrize("placement", [[[0, 1]], [[0, 2], [1]]], ids=str)
async def test_every_kind_in_chunks(tmp_path: Path, placement: list[list[int]]) -> None:
    async with Fleet(tmp_path, placement) as fleet:
        assert all(await fleet.run(f"{PROGRAMS}:every_kind", 600_001))


async def test_every_placement_gives_the_same_bits(tmp_path: Path) -> None:
    placements = [
        [[0, 1, 2, 3]],
        [[0], [1], [2], [3]],
        [[0, 3], [1, 2]],
        [[1, 2, 3], [0]],
        [[2], [0, 1], [3]],
    ]
    seen: list[object] = []
    for k, placement in enumerate(placements):
        folder = tmp_path / str(k)
        folder.mkdir()
        async with Fleet(folder, placement) as fleet:
            seen.append(await fleet.run(f"{PROGRAMS}:sums", 40_000, 4))
    assert all(one == seen[0] for one in seen)


async def test_a_huge_tensor_goes_through_a_small_mailbox(tmp_path: Path) -> None:
    async with Fleet(tmp_path, [[0], [1]]) as fleet:
        sizes = await fleet.run(f"{PROGRAMS}:memory", 25_000_000)
    assert max(sizes) <= 64 << 20
