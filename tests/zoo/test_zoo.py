"""Many kinds of training give the same bits wherever their ranks are, shared devices included.

The fixed subset starts four ranks twice, and two ranks twice; every start runs all of its cases. The whole
zoo is long: `make soak`.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.zoo.families import ACROSS, FAMILIES, FOUR, SHARED, SMALL, TOUR, TWO, Family
from tests.zoo.zoo import Lines, Seats, differences, on_tour, over_gloo, under_midstep

pytest.importorskip("torch")
_references: dict[str, list[Lines]] = {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.soak
async def test_the_subset_on_tour_over_shared_devices_and_nodes(tmp_path: Path) -> None:
    """Four ranks on four devices; then the same, moved once a second from seats to seats."""
    alone = await under_midstep(tmp_path / "alone", FOUR, "many", *SMALL)
    assert len(alone[0]) == len(SMALL)
    moved, moves = await on_tour(tmp_path / "moved", TOUR[1:], "many", *SMALL, every_s=1.0, most=12)
    assert differences(moved, alone) == []
    assert moves > 0


async def test_the_subset_with_two_ranks_gives_what_gloo_gives(tmp_path: Path) -> None:
    """Two ranks: a sum has one order."""
    plain = await over_gloo(tmp_path / "plain", 2, free_port(), "many", *SMALL)
    assert differences(await under_midstep(tmp_path / "ours", TWO, "many", *SMALL), plain) == []


soak = pytest.mark.soak
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def wanted(family: Family) -> None:
    missing = family.missing()
    if missing:
        pytest.skip(missing)


async def reference(tmp_path_factory: pytest.TempPathFactory, family: Family) -> list[Lines]:
    """A device for each rank; run once for all tests of a session."""
    if family.name not in _references:
        folder = tmp_path_factory.mktemp(family.name) / "alone"
        _references[family.name] = await under_midstep(folder, FOUR, *family.arguments, timeout_s=LONG_S)
    return _references[family.name]


LONG_S = 1500.0


@soak
@every_family
@pytest.mark.parametrize("seats", [*ACROSS, *SHARED], ids=str)
async def test_a_family_on_other_seats(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, family: Family, seats: Seats
) -> None:
    wanted(family)
    alone = await reference(tmp_path_factory, family)
    ours = await under_midstep(tmp_path / "ours", seats, *family.arguments, timeout_s=LONG_S)
    assert differences(ours, alone) == []


@soak
@every_family
async def test_a_family_on_tour(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, family: Family
) -> None:
    wanted(family)
    alone = await reference(tmp_path_factory, family)
    moved, _ = await on_tour(
        tmp_path / "moved", TOUR, *family.arguments, every_s=1.5, most=40, timeout_s=LONG_S
    )
    assert differences(moved, alone) == []


@soak
@every_family
@pytest.mark.parametrize("seats", [TWO, Seats([[0, 1]])], ids=str)
async def test_a_family_with_two_ranks_gives_what_gloo_gives(
    tmp_path: Path, family: Family, seats: Seats
) -> None:
    wanted(family)
    plain = await over_gloo(tmp_path / "plain", 2, free_port(), *family.arguments, timeout_s=LONG_S)
    ours = await under_midstep(tmp_path / "ours", seats, *family.arguments, timeout_s=LONG_S)
    assert differences(ours, plain) == []
