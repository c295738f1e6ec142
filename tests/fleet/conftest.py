"""A real embedded fleet for tests: 2 regions x 2 nodes x 2 devices, started by `midstep up`, ended by
`midstep down`, after which nothing of it may be left on the machine. `fleet` is shared by a session;
`own_fleet` makes others."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fleet.harness import ENDED, Fleet, MakeFleet, assert_nothing_left


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.fleet)


@pytest.fixture(scope="session")
def own_fleet() -> Iterator[MakeFleet]:
    """Makes a fleet of one's own: `own_fleet("--nodes", "1", ...)`. It is ended with the session at last."""
    if os.geteuid() != 0:
        pytest.skip("virtual nodes need root")
    before = set(os.listdir("/dev/shm"))
    made: list[Fleet] = []

    def make(*words: str) -> Fleet:
        fleet = Fleet(Path(tempfile.mkdtemp(prefix="midstep-test-")))
        made.append(fleet)
        fleet.up(*words)
        return fleet

    yield make
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda fleet: fleet.down("--now"), made))
    for fleet in made:
        assert_nothing_left(fleet, before)
        shutil.rmtree(fleet.state)


@pytest.fixture(scope="session")
def fleet(own_fleet: MakeFleet) -> Fleet:
    """The fleet that tests share: 2 regions (north, south) x 2 nodes x 2 devices."""
    return own_fleet("--regions", "2", "--nodes", "2", "--devices", "2")


@pytest.fixture(autouse=True)
def leave_no_job(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails must not leave its jobs on the devices of the next one. (Jobs that were there before
    it belong to fixtures of a wider scope.)"""
    if "fleet" not in request.fixturenames:
        yield
        return
    shared: Fleet = request.getfixturevalue("fleet")
    before = _living(shared)
    yield
    for job_id in sorted(_living(shared) - before):
        shared.cancel(job_id)


def _living(fleet: Fleet) -> set[str]:
    with fleet.client() as client:
        return {job.job_id for job in client.jobs() if job.state not in ENDED}
