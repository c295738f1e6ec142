"""For all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")
FLEETS = Path(__file__).parent / "fleet"


@pytest.fixture(autouse=True)
def ranks_without_a_cell_leave_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """A rank that is killed leaves its mark in /dev/shm. In a cell that is its home's, which goes with it;
    tests that start ranks without a cell have the machine's, where `tests/fleet` would find it."""
    if request.path.is_relative_to(FLEETS):
        yield
        return
    before = set(SHARED_MEMORY.glob("midstep-splice-*"))
    yield
    for folder in set(SHARED_MEMORY.glob("midstep-splice-*")) - before:
        shutil.rmtree(folder, ignore_errors=True)
