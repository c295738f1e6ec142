"""Homes that change their node while others stay where they are: only those are dumped, and an agent that
dies in the middle of it leaves those that stayed as they were.

Counted lines tell whether anything was lost, or happened twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from midstep.model.job import JobSpec, NodePlace, RankPlace, SnapshotRef
from midstep.model.phase import Goal, JobOnNode, Phase
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import Assignment, PeerAddress
from tests.agent.conftest import Fleet
from tests.agent.harness import NodeBox, criu
from tests.agent.test_agent import counting

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(criu() is None, reason="needs CRIU"),
]
COUNT = 120
Where = dict[str, tuple[int, ...]]  # node -> ranks, each a home of its own; the first node leads
APART: Where = {"a": (0,), "b": (1,)}
TOGETHER: Where = {"a": (0, 1)}


def wanted(epoch: int, goal: Goal, where: Where, **more: object) -> dict[str, Assignment]:
    """What every node shall do; ``leaving`` and ``store`` are by node."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    leaving, stores = more.pop("leaving", None), more.pop("stores", {})
    orders: dict[str, Assignment] = {}
    for index, (node, ranks) in enumerate(where.items()):
        places = tuple(RankPlace(r, r, 0, 1, (0,), cpus[:1]) for r in ranks)
        order = Assignment("j", epoch, goal, SPEC, NodePlace(node, index, places), **more)  # type: ignore[arg-type]
        if isinstance(leaving, dict):
            order = replace(order, leaving=leaving[node])
        orders[node] = replace(order, store=stores.get(node, {}))  # type: ignore[attr-defined]
    return orders


SPEC: JobSpec = counting(COUNT, world_size=2)


async def reach(fleet: Fleet, orders: dict[str, Assignment], phase: Phase) -> dict[str, JobOnNode]:
    for node, order in orders.items():
        await fleet.controller.want(node, order)
    return {n: await fleet.controller.until(n, "j", o.epoch, phase) for n, o in orders.items()}


async def run(fleet: Fleet, epoch: int, where: Where, **hold: object) -> None:
    """HOLD everywhere, then RUN."""
    held = await reach(fleet, wanted(epoch, Goal.HOLD, where, **hold), Phase.HELD)
    ports = [held[node].proxy_port for node in where]
    peers = tuple(PeerAddress(i, "127.0.0.1", ports[i], ranks) for i, ranks in enumerate(where.values()))
    await reach(fleet, wanted(epoch, Goal.RUN, where, peers=peers), Phase.RUNNING)


async def cut(
    fleet: Fleet, epoch: int, where: Where, leaving: Where
) -> tuple[SnapshotRef, dict[str, dict[str, str]]]:
    """DUMP what leaves and commit it; the source and the store of the next HOLD."""
    target = f"j-{epoch}"
    orders = wanted(epoch, Goal.DUMP, where, target=target, leaving=leaving)
    dumped = await reach(fleet, orders, Phase.DUMPED)
    store = next(iter(dumped.values())).store
    manifest = Snapshots(fleet.vaults["north"]).commit(target, "j", epoch, len(where), store)
    left = sorted(rank for ranks in leaving.values() for rank in ranks)
    assert sorted(rank for part in manifest.parts for rank in part.ranks) == left
    return SnapshotRef(target, "north", manifest.nbytes), store


async def gone(fleet: Fleet, node: str, epoch: int) -> None:
    await reach(fleet, wanted(epoch, Goal.GONE, {node: (1,)}), Phase.GONE)
    await fleet.controller.forget(node, "j")


async def counted(fleet: Fleet, at: dict[int, str]) -> None:
    for rank, node in at.items():
        assert await fleet.controller.until_exit(node, "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [str(i) for i in range(COUNT)]


async def lines(fleet: Fleet, count: int) -> None:
    for rank in (0, 1):
        await fleet.controller.until_true(
            lambda rank=rank: len(fleet.controller.lines("j", rank)) >= count, lambda: "it prints nothing"
        )


def pid_of(node: NodeBox, rank: int) -> int:
    """PID 1 of a rank on a node, by the record there."""
    entry = json.loads((node.state / "jobs/j/entry.json").read_text())
    return entry["processes"][str(rank)]["init_pid"]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


async def test_one_home_comes_and_leaves_while_the_other_stays(fleet: Fleet) -> None:
    a, b = fleet.node("a"), fleet.node("b")
    await run(fleet, 1, APART)
    await lines(fleet, 5)
    stays = pid_of(a, 0)
    source, store = await cut(fleet, 1, APART, {"a": (), "b": (1,)})
    await run(fleet, 2, TOGETHER, source=source, stores={"a": store})
    await gone(fleet, "b", 2)
    assert not list((b.state / "jobs").glob("j/home-*"))
    await lines(fleet, 30)
    source, store = await cut(fleet, 2, TOGETHER, {"a": (1,)})
    assert sorted(p.name for p in (a.state / "jobs/j").glob("home-*")) == ["home-0", "home-1"]
    await run(fleet, 3, APART, source=source, stores={"a": store})
    assert sorted(p.name for p in (a.state / "jobs/j").glob("home-*")) == ["home-0"]
    assert pid_of(a, 0) == stays, "it was neither dumped nor restored"
    await counted(fleet, {0: "a", 1: "b"})


@pytest.mark.soak
async def test_the_one_that_leads_leaves(fleet: Fleet) -> None:
    """Rank 0 goes to b, which keeps rank 1 and has the job's store from then on."""
    for name in "ab":
        fleet.node(name)
    await run(fleet, 1, APART)
    await lines(fleet, 5)
    source, store = await cut(fleet, 1, APART, {"a": (0,), "b": ()})
    await run(fleet, 2, {"b": (0, 1)}, source=source, stores={"b": store})
    await counted(fleet, {0: "b", 1: "b"})


@pytest.mark.soak
async def test_those_that_stay_are_stopped_and_go_on_when_all_is_given_up(fleet: Fleet) -> None:
    for name in "ab":
        fleet.node(name)
    await run(fleet, 1, APART)
    await lines(fleet, 5)
    source, store = await cut(fleet, 1, APART, {"a": (), "b": (1,)})
    before = len(fleet.controller.lines("j", 0))
    await run(fleet, 2, APART, source=source, stores={"a": store})
    assert len(fleet.controller.lines("j", 0)) - before < 20
    await counted(fleet, {0: "a", 1: "b"})


async def test_a_rank_that_is_neither_here_nor_in_the_snapshot(fleet: Fleet) -> None:
    """One that stayed was killed: what is left of the job is no job, and the node says so."""
    a = fleet.node("a")
    fleet.node("b")
    await run(fleet, 1, APART)
    await lines(fleet, 5)
    source, store = await cut(fleet, 1, APART, {"a": (), "b": (1,)})
    pid = pid_of(a, 0)
    os.kill(pid, 9)
    await fleet.controller.until_true(lambda: has_ended(pid), lambda: f"{pid} lives")
    orders = wanted(2, Goal.HOLD, TOGETHER, source=source, stores={"a": store})
    failed = (await reach(fleet, orders, Phase.FAILED))["a"]
    assert failed.failure is not None and "has no image of rank 0" in failed.failure.message


POINTS = [
    pytest.param(
        f"hold.{step}:{side}", marks=() if (step, side) == ("restore", "after") else pytest.mark.soak
    )
    for step in ("copy", "restore", "reconnect")
    for side in ("before", "after")
]
BACK = pytest.param(True, marks=pytest.mark.soak)


@pytest.mark.parametrize("turns_back", [False, BACK], ids=["again", "back"])
@pytest.mark.parametrize("point", POINTS)
async def test_the_agent_dies_while_one_comes(fleet: Fleet, point: str, turns_back: bool) -> None:
    """Under a new epoch it comes again, or everything goes on where it was."""
    a, b = fleet.node("a"), fleet.node("b")
    await run(fleet, 1, APART)
    await lines(fleet, 5)
    source, store = await cut(fleet, 1, APART, {"a": (), "b": (1,)})
    a.kill()
    a.start(point)
    await fleet.controller.until("a", "j", 1, Phase.DUMPED)
    await fleet.controller.want("a", wanted(2, Goal.HOLD, TOGETHER, source=source, stores={"a": store})["a"])
    assert await a.died() == -9, a.words()
    a.start()
    lost = await fleet.controller.until("a", "j", 2, Phase.PROXY_LOST)
    assert [r.exit_code for r in lost.ranks] == [None] * len(lost.ranks)
    where = APART if turns_back else TOGETHER
    await run(fleet, 3, where, source=source, stores={"a": store})
    if not turns_back:
        await gone(fleet, "b", 3)
    assert bool(list((b.state / "jobs").glob("j/home-*"))) is turns_back
    await counted(fleet, {0: "a", 1: "b" if turns_back else "a"})
