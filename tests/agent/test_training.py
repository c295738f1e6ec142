"""Ranks that use torch.distributed, cut in the middle of collectives and moved: the sums stay right."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from midstep.model.job import JobSpec, NodePlace, RankPlace, SnapshotRef
from midstep.model.phase import Goal, Phase
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import Assignment, PeerAddress
from tests.agent.conftest import Fleet
from tests.agent.harness import criu

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SCRIPT = """
import os, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, n = dist.get_rank(), dist.get_world_size()
x = torch.full((20000,), float(rank + 1))
for step in range(240):
    y = x * (step + 1)
    dist.all_reduce(y)
    assert (y == sum(range(1, n + 1)) * (step + 1)).all(), (step, y[0])
    print(step, int(y[0]), flush=True)
    time.sleep(0.02)
dist.destroy_process_group()
"""
STEPS, RANKS = 240, 2
SPEC = JobSpec((sys.executable, "-c", SCRIPT), world_size=RANKS)


def spread(nodes: list[str]) -> list[NodePlace]:
    """A home and a rank on each node; both homes on the only one."""
    cpus = sorted(os.sched_getaffinity(0))
    ranks = [RankPlace(r, r, 0, 1, (0,), (cpus[r % len(cpus)],)) for r in range(RANKS)]
    if len(nodes) == 1:
        return [NodePlace(nodes[0], 0, tuple(ranks))]
    return [NodePlace(node, i, (ranks[i],)) for i, node in enumerate(nodes)]


class Driver:
    """What a controller does with one job, without its patience."""

    def __init__(self, fleet: Fleet, spec: JobSpec = SPEC) -> None:
        self.fleet, self.spec, self.epoch = fleet, spec, 0
        self.places: list[NodePlace] = []

    async def everywhere(self, goal: Goal, phase: Phase, **more: object):
        for place in self.places:
            order = Assignment("j", self.epoch, goal, self.spec, place, **more)  # type: ignore[arg-type]
            await self.fleet.controller.want(place.node, order)
        return [await self.fleet.controller.until(p.node, "j", self.epoch, phase) for p in self.places]

    async def run(
        self, nodes: list[str], source: SnapshotRef | None = None, store: dict | None = None
    ) -> None:
        self.epoch += 1
        self.places = spread(nodes)
        held = await self.everywhere(Goal.HOLD, Phase.HELD, source=source, store=store or {})
        peers = tuple(
            PeerAddress(p.index, "127.0.0.1", h.proxy_port, tuple(r.rank for r in p.ranks))
            for p, h in zip(self.places, held, strict=True)
        )
        await self.everywhere(Goal.RUN, Phase.RUNNING, peers=peers)

    async def suspend(self) -> tuple[SnapshotRef, dict[str, str]]:
        target = f"j-{self.epoch}"
        dumped = await self.everywhere(Goal.DUMP, Phase.DUMPED, target=target)
        for report in dumped:
            print({s.step: (round(s.duration_s, 3), s.nbytes) for s in report.steps})
        region = next(n for n in self.fleet.nodes if n.name == self.places[0].node).region
        vault = Snapshots(self.fleet.vaults[region])
        vault.commit(target, "j", self.epoch, len(self.places), dumped[0].store)
        await self.everywhere(Goal.GONE, Phase.GONE)
        for place in self.places:
            await self.fleet.controller.forget(place.node, "j")
        return SnapshotRef(target, region), dumped[0].store

    async def until_step(self, step: int) -> None:
        lines = self.fleet.controller.lines
        await self.fleet.controller.until_true(lambda: len(lines("j")) > step, lambda: f"{lines('j')[-3:]}")


@pytest.mark.soak
@pytest.mark.skipif(criu() is None, reason="needs CRIU")
async def test_two_nodes_then_two_of_another_region_then_one_then_back(fleet: Fleet) -> None:
    for name, region in (("a", "north"), ("b", "north"), ("c", "south"), ("d", "south")):
        fleet.node(name, region)
    job = Driver(fleet)
    await job.run(["a", "b"])
    for step, nodes in ((20, ["c", "d"]), (80, ["c"]), (140, ["b"])):
        await job.until_step(step)
        source, store = await job.suspend()
        await job.run(nodes, source, store)
    # Two nodes of the other region wanted the first snapshot: one fetched it. Nobody fetched the second.
    assert [path.rpartition("/")[2] for path in fleet.controller.fetches] == ["j-1", "j-3"]
    for rank in range(RANKS):
        node = job.places[0].node
        assert await fleet.controller.until_exit(node, "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [f"{i} {3 * (i + 1)}" for i in range(STEPS)]


@pytest.mark.soak
async def test_proxies_may_die_at_any_moment(fleet: Fleet) -> None:
    """The agents are killed with their proxies, in turn; ranks wait in their collectives and then go on."""
    nodes = [fleet.node("a"), fleet.node("b")]
    job = Driver(fleet)
    await job.run(["a", "b"])
    for step in (20, 120, 220):
        await job.until_step(step)
        victim = nodes[step // 100 % 2]
        victim.kill()
        victim.start()
        await fleet.controller.until(victim.name, "j", job.epoch, Phase.PROXY_LOST)
        await job.run(["a", "b"])
    for rank, node in enumerate(nodes):
        assert await fleet.controller.until_exit(node.name, "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [f"{i} {3 * (i + 1)}" for i in range(STEPS)]


STALLED = """
import time, torch, torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 0:
    dist.all_reduce(torch.ones(5))
time.sleep(1000)
"""


async def test_a_collective_that_a_rank_never_joins_is_named(fleet: Fleet) -> None:
    fleet.node("a")
    job = Driver(fleet, replace(SPEC, command=(sys.executable, "-c", STALLED)))
    await job.run(["a"])
    found = await fleet.controller.until_true(
        lambda: fleet.controller.reports["a"]["j"].stalls, lambda: f"{fleet.controller.reports}"
    )
    assert (found[0].posted, found[0].missing) == ((0,), (1,))
    assert "ALLREDUCE" in found[0].operation and found[0].waiting_s > 1.0
