"""A dump that fails costs the job nothing and leaves nothing; without CRIU a job stands still in place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midstep.model.job import JobSpec
from midstep.model.phase import Fault, Goal, JobOnNode, Phase
from tests.agent.conftest import Fleet
from tests.agent.harness import NodeBox, assignment, criu
from tests.agent.test_agent import counting, go_away, lines, run

pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
needs_criu = pytest.mark.skipif(criu() is None, reason="needs CRIU")
# A userfaultfd: something that CRIU will not dump.
STUBBORN = """
import ctypes, time
held = ctypes.CDLL(None).syscall(323, 0)
assert held > 0
for i in range(100000):
    print(i, flush=True)
    time.sleep(0.02)
"""


async def dump(fleet: Fleet, node: NodeBox, spec: JobSpec, *phases: Phase, target: str = "s-1") -> JobOnNode:
    await fleet.controller.want(node.name, assignment("j", 1, Goal.DUMP, spec, node.name, target=target))
    return await fleet.controller.until(node.name, "j", 1, *phases)


async def goes_on(fleet: Fleet, node: NodeBox, spec: JobSpec) -> None:
    """As the controller does it after a failed dump: the processes are adopted under a new epoch."""
    await run(fleet, node, "j", spec, epoch=2)
    await lines(fleet, "j", len(fleet.controller.lines("j")) + 20)
    got = fleet.controller.lines("j")
    assert got == [str(i) for i in range(len(got))]
    await go_away(fleet, node, "j", spec, 2)


@needs_criu
async def test_what_criu_refuses_is_said_and_the_job_goes_on(fleet: Fleet) -> None:
    node, spec = fleet.node("a"), JobSpec((sys.executable, "-c", STUBBORN))
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    failed = await dump(fleet, node, spec, Phase.FAILED)
    assert failed.failure is not None and failed.failure.intact and failed.failure.step == "dump"
    assert failed.failure.message and not list((fleet.vaults["north"] / "snapshots").iterdir())
    assert await dump(fleet, node, spec, Phase.FAILED, target="s-2")  # another target is another try
    await goes_on(fleet, node, spec)


@needs_criu
async def test_a_full_disk_costs_the_snapshot_only(fleet: Fleet) -> None:
    vault = fleet.vaults["north"]
    vault.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", vault], check=True)
    try:
        node, spec = fleet.node("a"), counting(100000)
        await run(fleet, node, "j", spec)
        await lines(fleet, "j", 5)
        failed = await dump(fleet, node, spec, Phase.FAILED)
        assert failed.failure is not None and failed.failure.intact and failed.failure.fault is Fault.NODE
        assert "full" in failed.failure.message
        assert not list((vault / "snapshots").iterdir())
        await goes_on(fleet, node, spec)
    finally:
        for box in fleet.nodes:
            box.close()
        subprocess.run(["umount", "-l", vault], check=True)


async def test_without_criu_a_job_stands_still_in_place(fleet: Fleet) -> None:
    node, spec = fleet.node("a", with_criu=False), counting(100000)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    dumped = await dump(fleet, node, spec, Phase.DUMPED)
    assert dumped.nbytes == 0
    node.kill()
    node.start()
    await fleet.controller.until("a", "j", 1, Phase.DUMPED)
    before = _log(node).stat().st_size
    await asyncio.sleep(0.3)
    assert _log(node).stat().st_size == before
    await goes_on(fleet, node, spec)


async def test_a_rank_killed_with_its_namespace_is_lost_not_ended(fleet: Fleet) -> None:
    node, spec = fleet.node("a", with_criu=False), counting(100000)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    for pid in inits(node):
        os.kill(pid, signal.SIGKILL)
    lost = await fleet.controller.until("a", "j", 1, Phase.FAILED)
    assert lost.failure is not None and lost.failure.fault is Fault.NODE and not lost.failure.intact
    assert "were killed from outside" in lost.failure.message


def inits(node: NodeBox) -> list[int]:
    """PID 1 of each of a node's ranks."""
    found: list[int] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"midstep-init" in words and os.path.samefile(
                f"/proc/{pid}/root/run/midstep/node", node.state
            ):
                found.append(int(pid))
    return found


def _log(node: NodeBox) -> Path:
    return node.state / "jobs/j/home-0/logs/rank-0.log"
