"""Jobs of many kinds, moved from one node to another in the middle: they end exactly as if they had been
left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from midstep.agent.drivers.errors import Kind, Refused
from tests.drivers.nodes import Job, Node

CASES = Path(__file__).parent / "cases"
NAMES = sorted(p.name for p in CASES.iterdir() if p.suffix in (".py", ".sh", ".pl") and p.name != "pause.py")
RUN_BY = {".py": sys.executable, ".sh": "/bin/bash", ".pl": "/usr/bin/perl"}


@pytest.mark.parametrize("name", NAMES)
def test_a_moved_job_ends_like_one_left_alone(
    name: str, new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    alone, moved = new_job("alone"), new_job("moved")
    for job, is_moved in ((alone, False), (moved, True)):
        for case in CASES.iterdir():
            if case.is_file():
                (job.outside / "work" / case.name).write_bytes(case.read_bytes())
        job.start([RUN_BY[Path(name).suffix], name])
        job.wait_for("ready")
        if is_moved:
            move(job, nodes[1])
        (job.outside / "work" / "go").touch()
        assert job.finish() == 0, job.log()
    assert moved.log() == alone.log()
    assert contents(moved.outside / "work") == contents(alone.outside / "work")


def move(job: Job, to: Node) -> None:
    try:
        job.move(to)
    except Refused as error:
        if error.refusal.kind is Kind.KERNEL:
            pytest.skip(error.refusal.message)
        raise


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    }
