"""The agent dies, as by `kill -9`, before and after every step of everything it does; the job does not mind.

Each case ends with the same proof: the job counted every number once, in order, and the node is clean.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from midstep.agent.faults import POINTS
from midstep.model.job import JobSpec, SnapshotRef
from midstep.model.phase import Fault, Goal, JobOnNode, Phase
from midstep.vault.snapshots import Snapshots
from tests.agent.conftest import Fleet
from tests.agent.harness import NodeBox, assignment, criu, peers
from tests.agent.test_agent import counting, go_away, lines, run
from tests.agent.test_dump_fails import inits

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(criu() is None, reason="needs CRIU"),
]
COUNT = 60


def points(goal: str, *steps: str) -> list[object]:
    """Before a step is nearly the same as after the one before it: those cases are for the long run, as
    are all but two of the others."""
    chosen = [p for p in POINTS if p.startswith(goal + ".")]
    some = [p for p in chosen if not steps or p.split(".")[1].split(":")[0] in steps]
    quick = (some[0], [p for p in some if p.endswith(":after")][-1])
    return [p if p in quick else pytest.param(p, marks=pytest.mark.soak) for p in some]


async def reborn(fleet: Fleet, node: NodeBox, job: str, epoch: int, *phases: Phase) -> JobOnNode:
    """The agent has killed itself; start another one and hear what it says."""
    assert await node.died() == -9, node.words()
    node.start()
    return await fleet.controller.until(node.name, job, epoch, *phases)


async def finish(fleet: Fleet, node: NodeBox, spec: JobSpec, epoch: int, **hold: object) -> None:
    """Under a new epoch, from wherever it stands, to the end; nothing is left."""
    await run(fleet, node, "j", spec, epoch=epoch, **hold)
    assert await fleet.controller.until_exit(node.name, "j") == 0
    await fleet.controller.until_true(
        lambda: fleet.controller.lines("j") == [str(i) for i in range(COUNT)],
        lambda: f"{fleet.controller.lines('j')}",
        timeout_s=5,
    )
    await go_away(fleet, node, "j", spec, epoch)
    await fleet.controller.until_true(lambda: not node.jobs(), lambda: f"{node.jobs()}")


@pytest.mark.parametrize("point", points("hold", "copy", "reconnect"))
async def test_during_a_fresh_hold(fleet: Fleet, point: str) -> None:
    node, spec = fleet.node("a", crash_at=point), counting(COUNT)
    await fleet.controller.want("a", assignment("j", 1, Goal.HOLD, spec, "a"))
    failed = await reborn(fleet, node, "j", 1, Phase.FAILED)
    assert failed.failure is not None and not failed.failure.intact
    await finish(fleet, node, spec, 2)


@pytest.mark.parametrize("point", points("run", "reconnect", "launch"))
async def test_during_a_start(fleet: Fleet, point: str) -> None:
    node, spec = fleet.node("a", crash_at=point), counting(COUNT)
    await fleet.controller.want("a", assignment("j", 1, Goal.HOLD, spec, "a"))
    held = await fleet.controller.until("a", "j", 1, Phase.HELD)
    await fleet.controller.want("a", assignment("j", 1, Goal.RUN, spec, "a", peers=peers(held, 1)))
    await reborn(fleet, node, "j", 1, Phase.FAILED, Phase.PROXY_LOST)
    await finish(fleet, node, spec, 2)


@pytest.mark.parametrize("point", points("dump"))
async def test_during_a_dump(fleet: Fleet, point: str) -> None:
    """The ranks go on under a new epoch, and nothing of the snapshot is left to be seen."""
    node, spec = fleet.node("a", crash_at=point), counting(COUNT)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    await fleet.controller.want("a", assignment("j", 1, Goal.DUMP, spec, "a", target="s-1"))
    failed = await reborn(fleet, node, "j", 1, Phase.FAILED)
    assert failed.failure is not None and failed.failure.intact
    assert not list((fleet.vaults["north"] / "snapshots").iterdir())
    await finish(fleet, node, spec, 2)


async def test_a_node_dies_during_a_dump(fleet: Fleet) -> None:
    """Its ranks with its agent: they are lost, and a job whose other ranks ran on has no use for new ones."""
    node, spec = fleet.node("a", crash_at="dump.dump:before"), counting(COUNT)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    await fleet.controller.want("a", assignment("j", 1, Goal.DUMP, spec, "a", target="s-1"))
    assert await node.died() == -9, node.words()
    for pid in inits(node):
        os.kill(pid, signal.SIGKILL)
    node.start()
    lost = await fleet.controller.until("a", "j", 1, Phase.FAILED)
    assert lost.failure is not None and not lost.failure.intact and lost.failure.fault is Fault.NODE
    await fleet.controller.want("a", assignment("j", 2, Goal.HOLD, spec, "a", adopt=True))
    lost = await fleet.controller.until("a", "j", 2, Phase.FAILED)
    assert lost.failure is not None and "has not got the job's ranks" in lost.failure.message
    await finish(fleet, node, spec, 3)


async def dumped(fleet: Fleet, node: NodeBox, spec: JobSpec) -> tuple[SnapshotRef, dict[str, str]]:
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    await fleet.controller.want(node.name, assignment("j", 1, Goal.DUMP, spec, node.name, target="s-1"))
    report = await fleet.controller.until(node.name, "j", 1, Phase.DUMPED)
    Snapshots(fleet.vaults["north"]).commit("s-1", "j", 1, 1, report.store)
    await go_away(fleet, node, "j", spec, 1)
    return SnapshotRef("s-1", "north", report.nbytes), report.store


@pytest.mark.parametrize("point", points("hold", "transfer", "fetch", "copy", "restore", "reconnect"))
async def test_during_a_restore(fleet: Fleet, point: str) -> None:
    """On a node of another region, so that the fetch is real; tried again from the same snapshot."""
    spec = counting(COUNT)
    source, store = await dumped(fleet, fleet.node("a"), spec)
    other = fleet.node("b", "south", crash_at=point)
    hold = assignment("j", 2, Goal.HOLD, spec, "b", source=source, store=store)
    await fleet.controller.want("b", hold)
    failed = await reborn(fleet, other, "j", 2, Phase.FAILED)
    assert failed.failure is not None and not failed.failure.intact
    assert not list((other.state / "jobs").glob("j/home-*"))
    await finish(fleet, other, spec, 3, source=source, store=store)


@pytest.mark.parametrize("point", points("run", "reconnect", "thaw"))
async def test_during_a_thaw(fleet: Fleet, point: str) -> None:
    """Restored ranks, some of which may have moved already, are adopted: nothing happens twice."""
    spec = counting(COUNT)
    source, store = await dumped(fleet, fleet.node("a"), spec)
    other = fleet.node("b", "south", crash_at=point)
    await fleet.controller.want("b", assignment("j", 2, Goal.HOLD, spec, "b", source=source, store=store))
    held = await fleet.controller.until("b", "j", 2, Phase.HELD)
    await fleet.controller.want("b", assignment("j", 2, Goal.RUN, spec, "b", peers=peers(held, 1)))
    await reborn(fleet, other, "j", 2, Phase.PROXY_LOST)
    await finish(fleet, other, spec, 3)


@pytest.mark.parametrize("point", points("end"))
async def test_during_the_end(fleet: Fleet, point: str) -> None:
    node, spec = fleet.node("a", crash_at=point), counting(100000)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    await fleet.controller.want("a", assignment("j", 1, Goal.GONE, spec, "a", collect=True))
    await reborn(fleet, node, "j", 1, Phase.GONE)
    assert (fleet.vaults["north"] / "results/j/home-0/logs/rank-0.log").read_text().startswith("0\n1\n2\n")
    await fleet.controller.forget("a", "j")
    await fleet.controller.until_true(lambda: not node.jobs(), lambda: f"{node.jobs()}")


BIG = """
import time
held = bytearray(b"x" * 400_000_000)
for i in range(60):
    print(i, flush=True)
    time.sleep(0.05)
"""
MOMENTS_S = [0.1, 0.4, *(pytest.param(n * 0.05, marks=pytest.mark.soak) for n in range(16))]


@pytest.mark.parametrize("moment_s", MOMENTS_S)
async def test_while_criu_is_at_work(fleet: Fleet, moment_s: float) -> None:
    """Killed at any moment of a dump that takes its time, and then at the same moment of a restore."""
    node, spec = fleet.node("a"), JobSpec((sys.executable, "-c", BIG))
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 5)
    await fleet.controller.want("a", assignment("j", 1, Goal.DUMP, spec, "a", target="s-1"))
    await killed_after(node, moment_s)
    await fleet.controller.until("a", "j", 1, Phase.FAILED, Phase.DUMPED, Phase.PROXY_LOST)
    await run(fleet, node, "j", spec, epoch=2)
    await lines(fleet, "j", 10)
    await fleet.controller.want("a", assignment("j", 2, Goal.DUMP, spec, "a", target="s-2"))
    report = await fleet.controller.until("a", "j", 2, Phase.DUMPED)
    Snapshots(fleet.vaults["north"]).commit("s-2", "j", 2, 1, report.store)
    await go_away(fleet, node, "j", spec, 2)
    source = SnapshotRef("s-2", "north", report.nbytes)
    await fleet.controller.want("a", assignment("j", 3, Goal.HOLD, spec, "a", source=source))
    await killed_after(node, moment_s)
    await fleet.controller.until("a", "j", 3, Phase.FAILED, Phase.HELD, Phase.PROXY_LOST)
    await finish(fleet, node, spec, 4, source=source)


async def killed_after(node: NodeBox, moment_s: float) -> None:
    await asyncio.sleep(moment_s)
    node.kill()
    node.start()
