"""A real agent, real ranks, a controller of the test's own: from HOLD to GONE, and what is said about it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import pytest

from midstep.model.job import JobSpec
from midstep.model.phase import Fault, Goal, Phase
from tests.agent.conftest import Fleet
from tests.agent.harness import NodeBox, assignment, criu, peers

pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
COUNT = "i=0; while [ $i -lt {n} ]; do echo $i; i=$((i+1)); sleep 0.02; done; echo over >done"


def counting(n: int, **more: object) -> JobSpec:
    return JobSpec(("sh", "-c", COUNT.format(n=n)), **more)  # type: ignore[arg-type]


async def run(fleet: Fleet, node: NodeBox, job: str, spec: JobSpec, epoch: int = 1, **hold: object) -> None:
    """HOLD, then RUN."""
    await fleet.controller.want(node.name, assignment(job, epoch, Goal.HOLD, spec, node.name, **hold))
    held = await fleet.controller.until(node.name, job, epoch, Phase.HELD)
    ready = assignment(job, epoch, Goal.RUN, spec, node.name, peers=peers(held, spec.world_size))
    await fleet.controller.want(node.name, ready)
    await fleet.controller.until(node.name, job, epoch, Phase.RUNNING)


async def go_away(
    fleet: Fleet, node: NodeBox, job: str, spec: JobSpec, epoch: int, collect: bool = False
) -> None:
    await fleet.controller.want(
        node.name, assignment(job, epoch, Goal.GONE, spec, node.name, collect=collect)
    )
    await fleet.controller.until(node.name, job, epoch, Phase.GONE)
    await fleet.controller.forget(node.name, job)


async def lines(fleet: Fleet, job: str, count: int) -> None:
    await fleet.controller.until_true(
        lambda: len(fleet.controller.lines(job)) >= count, lambda: f"{fleet.controller.lines(job)}"
    )


async def test_a_job_runs_to_its_end_and_leaves_only_its_results(fleet: Fleet) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("script.sh")
        member.size, member.mode = len(b"echo $RANK of $WORLD_SIZE in $PWD\n"), 0o644
        tar.addfile(member, io.BytesIO(b"echo $RANK of $WORLD_SIZE in $PWD\n"))
    blob = hashlib.sha256(archive.getvalue()).hexdigest()
    fleet.controller.blobs[blob] = archive.getvalue()
    spec = JobSpec(("sh", "-c", ". ./script.sh; pwd >place"), world_size=2, workdir_blob=blob)
    node = fleet.node("a")
    await run(fleet, node, "j", spec)
    assert [await fleet.controller.until_exit("a", "j", r) for r in (0, 1)] == [0, 0]
    for rank in (0, 1):
        assert fleet.controller.lines("j", rank) == [f"{rank} of 2 in /run/midstep/cell/work"]
    await go_away(fleet, node, "j", spec, 1, collect=True)
    results = fleet.vaults["north"] / "results" / "j" / "home-0"
    assert (results / "work" / "place").read_text() == "/run/midstep/cell/work\n"
    assert (results / "logs" / "rank-1.log").exists() and not (results / "tmp").exists()
    await fleet.controller.until_true(lambda: not node.jobs(), lambda: f"{node.jobs()}")


async def test_the_ranks_of_a_job_hash_alike_and_jobs_do_not(fleet: Fleet) -> None:
    """The seed is in every string that was hashed: ranks that have it alike are stored once."""
    node, command = fleet.node("a"), ("sh", "-c", "echo seed ${PYTHONHASHSEED:-own}")
    jobs = {
        "j": JobSpec(command, world_size=2),
        "k": JobSpec(command, world_size=2),
        "named": JobSpec(command, world_size=2, env={"PYTHONHASHSEED": "7"}),
        "alone": JobSpec(command),
    }
    said: dict[str, list[str]] = {}
    for job_id, spec in jobs.items():
        await run(fleet, node, job_id, spec)
        ranks = range(spec.world_size)
        assert [await fleet.controller.until_exit("a", job_id, r) for r in ranks] == [0] * len(ranks)
        said[job_id] = [line for r in ranks for line in fleet.controller.lines(job_id, r)]
    for job_id in ("j", "k"):
        assert len(set(said[job_id])) == 1 and 0 < int(said[job_id][0].split()[1]) < 1 << 32
    assert said["j"] != said["k"]
    assert said["named"] == ["seed 7"] * 2 and said["alone"] == ["seed own"]


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [(("sh", "-c", "echo alas; exit 7"), 7, "alas"), (("sh", "-c", "echo ouch; kill -9 $$"), 137, "ouch")],
)
async def test_a_rank_that_fails_is_reported_after_its_last_words(
    fleet: Fleet, command: tuple[str, ...], code: int, words: str
) -> None:
    node = fleet.node("a")
    await run(fleet, node, "j", JobSpec(command))
    assert await fleet.controller.until_exit("a", "j") == code
    assert words in fleet.controller.lines("j")
    assert words in fleet.controller.reports["a"]["j"].ranks[0].last_lines


async def test_a_command_that_is_not_there_is_the_users_fault(fleet: Fleet) -> None:
    fleet.node("a")
    spec = JobSpec(("no-such-program",))
    await fleet.controller.want("a", assignment("j", 1, Goal.HOLD, spec, "a"))
    held = await fleet.controller.until("a", "j", 1, Phase.HELD)
    await fleet.controller.want("a", assignment("j", 1, Goal.RUN, spec, "a", peers=peers(held, 1)))
    failed = await fleet.controller.until("a", "j", 1, Phase.FAILED)
    assert failed.failure is not None and failed.failure.fault is Fault.USER
    assert "no-such-program" in failed.failure.message


async def test_an_older_epoch_is_refused_and_an_unnamed_job_is_left_alone(fleet: Fleet) -> None:
    node, spec = fleet.node("a"), counting(2000)
    await run(fleet, node, "j", spec, epoch=5)
    await fleet.controller.want("a", assignment("j", 4, Goal.GONE, spec, "a"))
    before = len(fleet.controller.lines("j"))
    await lines(fleet, "j", before + 20)
    assert fleet.controller.reports["a"]["j"].epoch == 5
    await fleet.controller.forget("a", "j")
    await fleet.controller.until("a", "j", 5, Phase.RUNNING)


async def test_a_restarted_agent_tells_the_truth_and_adopts_the_ranks(fleet: Fleet) -> None:
    """The agent is killed twice: the ranks go on meanwhile, also through the adoption under a new epoch."""
    node, spec = fleet.node("a"), counting(200)
    await run(fleet, node, "j", spec)
    await lines(fleet, "j", 10)
    node.kill()
    node.start()
    lost = await fleet.controller.until("a", "j", 1, Phase.PROXY_LOST)
    assert lost.ranks[0].exit_code is None
    await run(fleet, node, "j", spec, epoch=2)
    node.kill()
    assert await fleet_count_done(node)
    node.start()
    assert await fleet.controller.until_exit("a", "j") == 0
    assert fleet.controller.lines("j") == [str(i) for i in range(200)]


async def fleet_count_done(node: NodeBox) -> bool:
    """Wait, with no agent there, until the job is over."""
    import asyncio

    for _ in range(600):
        if (node.state / "jobs/j/home-0/work/done").exists():
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.soak
@pytest.mark.skipif(criu() is None, reason="needs CRIU")
async def test_a_job_is_moved_between_regions_again_and_again(fleet: Fleet) -> None:
    """Counted lines tell whether anything was lost, or happened twice."""
    nodes = [fleet.node("a", "north"), fleet.node("b", "south")]
    spec = counting(300, world_size=2)
    source = None
    await run(fleet, nodes[0], "j", spec, epoch=1)
    for epoch in (1, 2, 3):
        here, there = nodes[(epoch + 1) % 2], nodes[epoch % 2]
        await lines(fleet, "j", 30 * epoch)
        source, store = await suspend(fleet, here, spec, epoch)
        await run(fleet, there, "j", spec, epoch=epoch + 1, source=source, store=store)
    for rank in (0, 1):
        assert await fleet.controller.until_exit("b", "j", rank) == 0
        assert fleet.controller.lines("j", rank) == [str(i) for i in range(300)]
    assert f"/v1/internal/vault/north/{'j-1'}" in fleet.controller.fetches
    await go_away(fleet, nodes[1], "j", spec, 4, collect=True)
    assert (fleet.vaults["south"] / "results/j/home-0/work/done").exists()


ENDS_BEFORE = """
[ $RANK = 0 ] && until [ -e go ]; do sleep 0.02; done && exit 7
i=0; while [ $i -lt 150 ]; do echo $i; i=$((i+1)); sleep 0.02; done
"""


@pytest.mark.skipif(criu() is None, reason="needs CRIU")
async def test_a_rank_that_ends_just_before_the_cut_is_part_of_it(fleet: Fleet) -> None:
    """Nobody has noticed its end when the dump begins: the snapshot has its status in place of its image."""
    node, spec = fleet.node("a", "north"), JobSpec(("sh", "-c", ENDS_BEFORE), world_size=2)
    await run(fleet, node, "j", spec)
    await fleet.controller.until_true(lambda: fleet.controller.lines("j", 1), lambda: "rank 1 prints nothing")
    node.stop()
    home = node.state / "jobs/j/home-0"
    (home / "work/go").touch()
    await fleet.controller.until_true((home / "run/exit-0").exists, lambda: "rank 0 has not ended")
    await fleet.controller.want("a", assignment("j", 1, Goal.DUMP, spec, "a", target="j-1"))
    node.go_on()
    source, store = await suspend(fleet, node, spec, 1)
    await run(fleet, node, "j", spec, epoch=2, source=source, store=store)
    assert await fleet.controller.until_exit("a", "j", 0) == 7
    assert await fleet.controller.until_exit("a", "j", 1) == 0
    assert fleet.controller.lines("j", 1) == [str(i) for i in range(150)]
    await go_away(fleet, node, "j", spec, 2)


async def suspend(fleet: Fleet, node: NodeBox, spec: JobSpec, epoch: int):
    """DUMP, commit, GONE; what the next HOLD needs."""
    from midstep.model.job import SnapshotRef
    from midstep.vault.snapshots import Snapshots

    target, region = f"j-{epoch}", "north" if node.name == "a" else "south"
    await fleet.controller.want(node.name, assignment("j", epoch, Goal.DUMP, spec, node.name, target=target))
    dumped = await fleet.controller.until(node.name, "j", epoch, Phase.DUMPED)
    assert [s.step for s in dumped.steps if s.step != "lighten"] == ["freeze", "drain", "dump", "store"]
    vault = Snapshots(fleet.vaults[region])
    manifest = vault.commit(target, "j", epoch, 1, dumped.store)
    assert manifest.nbytes == dumped.nbytes > 0
    await go_away(fleet, node, "j", spec, epoch)
    assert not list((node.state / "jobs").glob("j/home-*"))
    return SnapshotRef(target, region, dumped.nbytes), dumped.store
