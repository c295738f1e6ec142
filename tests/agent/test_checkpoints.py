"""A checkpoint: all nodes dump, and the same processes go on under the same proxies; a snapshot of it is a
whole job."""

from __future__ import annotations

import os

import pytest

from midstep.model.job import SnapshotRef
from midstep.model.phase import Goal, Phase
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import PeerAddress
from tests.agent.conftest import Fleet
from tests.agent.harness import criu
from tests.agent.test_training import RANKS, STEPS, Driver

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(criu() is None, reason="needs CRIU"),
]


async def checkpoint(job: Driver, number: int) -> tuple[SnapshotRef, dict[str, str], list[int]]:
    """Take one and let the job go on; also how many bytes of log there were at the cut."""
    target = f"j-{job.epoch}.{number}"
    dumped = await job.everywhere(Goal.DUMP, Phase.DUMPED, target=target, keep=True)
    assert [report.target for report in dumped] == [target] * len(dumped)
    vault = Snapshots(next(iter(job.fleet.vaults.values())))
    assert not list(vault.stage(target).iterdir()), "the ranks wait for memory only"
    peers = tuple(
        PeerAddress(p.index, "127.0.0.1", report.proxy_port, tuple(r.rank for r in p.ranks))
        for p, report in zip(job.places, dumped, strict=True)
    )
    again = await job.everywhere(Goal.RUN, Phase.RUNNING, peers=peers, target=target)
    assert [report.proxy_port for report in again] == [report.proxy_port for report in dumped]
    reports = job.fleet.controller.reports
    await job.fleet.controller.until_true(
        lambda: all(reports[p.node]["j"].stored == target for p in job.places), lambda: f"{reports}"
    )
    vault.commit(target, "j", job.epoch, len(job.places), dumped[0].store)
    homes = [vault.path(target) / f"home-{rank}" / "logs" for rank in range(RANKS)]
    sizes = [sum(file.stat().st_size for file in home.iterdir()) for home in homes]
    return SnapshotRef(target, "north"), dumped[0].store, sizes


async def test_the_same_processes_go_on_and_the_snapshot_is_a_whole_job(fleet: Fleet) -> None:
    nodes = [fleet.node("a"), fleet.node("b")]
    job = Driver(fleet)
    await job.run(["a", "b"])
    taken: list[tuple[SnapshotRef, dict[str, str], list[int]]] = []
    for number, step in enumerate((20, 40, 60)):
        await job.until_step(step)
        taken.append(await checkpoint(job, number))
    await job.until_step(90)
    for node in nodes:  # all of it is lost
        await fleet.controller.forget(node.name, "j")
    await job.everywhere(Goal.GONE, Phase.GONE)
    source, store, sizes = taken[-1]
    before = {rank: len(fleet.controller.logs["j", rank]) for rank in range(RANKS)}
    await job.run(["b", "a"], source, store)
    for rank, node in enumerate(("b", "a")):
        assert await fleet.controller.until_exit(node, "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [f"{i} {3 * (i + 1)}" for i in range(STEPS)]
    # The log that the controller had was cut back to the snapshot's, to the byte.
    assert {(rank, before[rank], sizes[rank]) for rank in range(RANKS)} <= {
        (rank, had, floor) for _, rank, had, floor in fleet.controller.rewinds
    }


@pytest.mark.soak
async def test_an_agent_that_dies_in_a_checkpoint_leaves_ranks_that_go_on(fleet: Fleet) -> None:
    """The ranks stand still with their part written; the next agent adopts them where they stand."""
    nodes = [fleet.node("a"), fleet.node("b")]
    job = Driver(fleet)
    await job.run(["a", "b"])
    await job.until_step(20)
    await job.everywhere(Goal.DUMP, Phase.DUMPED, target="j-1.0", keep=True)
    nodes[0].kill()
    nodes[0].start()
    await fleet.controller.until("a", "j", 1, Phase.DUMPED)
    await job.run(["a", "b"])
    for rank, node in enumerate(nodes):
        assert await fleet.controller.until_exit(node.name, "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [f"{i} {3 * (i + 1)}" for i in range(STEPS)]
