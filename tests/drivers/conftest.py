"""Fixtures for tests that start, freeze and move real processes: they need root and CRIU, and are skipped
without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midstep.agent.drivers.criu import Criu
from midstep.agent.install.criu_find import find_criu
from tests.drivers.nodes import STATE, Job, Node


@pytest.fixture(scope="session")
def criu() -> Criu:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    found = find_criu()
    if found is None or not found.new_enough:
        pytest.skip("needs CRIU 4.1 or newer (midstep doctor --fix)")
    return Criu(found.path)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    STATE.mkdir()
    both: list[Node] = []
    for name in ("node-a", "node-b"):
        (tmp_path / name).mkdir()
        both.append(Node(name, tmp_path / name))
    yield both[0], both[1]
    for node in both:
        node.close()
    STATE.rmdir()


@pytest.fixture
def new_job(nodes: tuple[Node, Node], criu: Criu) -> Iterator[Callable[..., Job]]:
    made: list[Job] = []

    def make(name: str = "job", **more: int) -> Job:
        job = Job(nodes[0], criu, name, **more)  # pyright: ignore[reportArgumentType]
        job.prepare()
        made.append(job)
        return job

    yield make
    for job in made:
        job.remove()
