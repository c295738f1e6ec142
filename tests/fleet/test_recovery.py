"""What is lost is done again: after ranks, nodes, a region or a snapshot are lost, a job goes on from its
newest checkpoint, and its output, its files and its weights are those of the undisturbed run.

Buys: checkpoints of running jobs, recovery and the fence, with real processes. `make test` loses a rank;
`make soak` nodes, a region, snapshots and controllers. SEED in the environment repeats the
moments that are drawn.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from midstep.client.types import JobView
from midstep.substrate.local import network
from midstep.substrate.local.nodes import Inhabitant, inhabitants
from midstep.substrate.local.plan import PLAN
from midstep.substrate.local.processes import send, wait_for
from tests.fleet.harness import Fleet, MakeFleet

LOSSES = (Path(__file__).parent / "kinds" / "losses.py").read_text()
FEW, MANY = "160", "600"
SEED = int(os.environ.get("SEED", time.time_ns() % 100_000))


@pytest.fixture(scope="module")
def lossy(own_fleet: MakeFleet) -> Fleet:
    """Nodes that do not answer are given up soon."""
    shape = ("--regions", "2", "--nodes", "3", "--devices", "1")
    return own_fleet(*shape, "--lost-node-after", "20", "--checkpoint-every", "off")


@functools.cache
def undisturbed(fleet: Fleet, steps: str) -> tuple[str, str]:
    """What both ranks print."""
    job = start(fleet, steps, until=None)
    fleet.wait(job, "completed", timeout_s=300)
    return fleet.logs(job, 0), fleet.logs(job, 1)


def start(
    fleet: Fleet, steps: str, until: int | None = 10, region: str = "north", devices: int = 2
) -> JobView:
    job = fleet.run("python", "job.py", steps, files={"job.py": LOSSES}, devices=devices, region=region)
    if until is not None:
        fleet.until_logs(job, f"step {until} ")
    return job


def checkpoint(fleet: Fleet, job: JobView) -> JobView:
    done = fleet.cli("checkpoint", job.job_id)
    assert done.returncode == 0, done.stderr
    with fleet.client() as client:
        return client.job(job.job_id)


def rank_processes(fleet: Fleet, node: str) -> list[Inhabitant]:
    """Everything of the job's ranks on a node."""
    return [i for i in inhabitants(fleet.paths) if i.node == node and b"job.py" in cmdline(i.identity.pid)]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def node_of(fleet: Fleet, job: JobView, rank: int) -> str:
    with fleet.client() as client:
        return client.job(job.job_id).ranks[rank].node


def recovered(fleet: Fleet, job: JobView, times: int) -> JobView:
    """Wait until it runs again after so many losses."""

    def back(view: JobView) -> bool:
        assert view.state not in ("failed", "suspended"), f"{view.failure} {view.reason}"
        return view.state == "running" and sum(m.kind == "recover" and m.ok for m in view.moves) == times

    with fleet.client() as client:
        return client.wait(job.job_id, back, 180)


def assert_as_undisturbed(fleet: Fleet, job: JobView, steps: str) -> None:
    fleet.wait(job, "completed", timeout_s=300)
    assert (fleet.logs(job, 0), fleet.logs(job, 1)) == undisturbed(fleet, steps)
    assert undisturbed(fleet, steps)[0].splitlines()[-1].endswith(f" {steps}"), "its files were rewound, too"


def cable(fleet: Fleet, node: str, state: str) -> None:
    """Take a node's cable out, or put it back."""
    plan = PLAN.validate_json(fleet.paths.fleet.read_bytes())
    network.ip(f"link set {plan.node(node).veth} {state}")


def is_stopped(inhabitant: Inhabitant) -> bool:
    stat = Path(f"/proc/{inhabitant.identity.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def test_a_rank_is_killed(fleet: Fleet) -> None:
    """Over two nodes, beside the run that nobody disturbs."""
    calm = start(fleet, "100", until=None, region="south", devices=3)
    job = start(fleet, "100", devices=3)
    assert node_of(fleet, job, 0) != node_of(fleet, job, 2)
    checkpoint(fleet, job)
    fleet.until_logs(job, "step 30 ")
    send(rank_processes(fleet, node_of(fleet, job, 2))[0].identity, signal.SIGKILL)
    recovered(fleet, job, 1)
    for one in (job, calm):
        fleet.wait(one, "completed")
    for rank in range(3):
        assert fleet.logs(job, rank) == fleet.logs(calm, rank)
    assert fleet.logs(job).splitlines()[-1].endswith(" 100"), "its files were rewound, too"


@pytest.mark.soak
def test_a_rank_is_killed_and_then_a_node_is_lost(lossy: Fleet) -> None:
    job = start(lossy, FEW)
    first = checkpoint(lossy, job)
    assert first.snapshot and first.state == "running"
    lossy.until_logs(job, "step 30 ")
    send(rank_processes(lossy, node_of(lossy, job, 1))[0].identity, signal.SIGKILL)
    recovered(lossy, job, 1)
    second = checkpoint(lossy, job)
    assert second.older_snapshot == first.snapshot
    victim = node_of(lossy, job, 0)
    ranks = rank_processes(lossy, victim)
    assert ranks
    cable(lossy, victim, "down")
    try:
        assert wait_for(lambda: all(map(is_stopped, ranks)), 60), "the agent lets nothing run"
        after = recovered(lossy, job, 2)
        assert victim not in {rank.node for rank in after.ranks}
        assert any(i.identity.alive for i in ranks), "they stand still; nobody could reach them"
    finally:
        cable(lossy, victim, "up")
    assert_as_undisturbed(lossy, job, FEW)
    assert wait_for(lambda: not rank_processes(lossy, victim), 60), "what is back late is removed"
    lossy.until_connected(6)


@pytest.mark.soak
def test_a_node_dies_and_is_there_again(lossy: Fleet) -> None:
    """As a machine that restarts: its agent, its holder and all ranks are gone at once."""
    job = start(lossy, FEW)
    checkpoint(lossy, job)
    lossy.until_logs(job, "step 30 ")
    victim = node_of(lossy, job, 1)
    for inhabitant in inhabitants(lossy.paths):
        if inhabitant.node == victim:
            send(inhabitant.identity, signal.SIGKILL)
    recovered(lossy, job, 1)
    assert_as_undisturbed(lossy, job, FEW)


@pytest.mark.soak
@pytest.mark.parametrize("devices", [1, 2], ids=["from-two-to-one", "from-one-to-two"])
@pytest.mark.parametrize("place", [0, 1], ids=["first-node", "second-node"])
def test_a_node_dies_in_a_resize(lossy: Fleet, place: int, devices: int) -> None:
    """At a moment that is drawn, the node that a rank leaves or goes to. No half placement is left: the job
    goes on from its checkpoint, or where it was, or with its new size, and its digits are the same."""
    job = start(lossy, FEW)
    nodes = [node_of(lossy, job, rank) for rank in (0, 1)]
    if devices == 2:
        lossy.resize(job, 1)
    checkpoint(lossy, job)
    lossy.until_logs(job, "step 30 ")
    with lossy.client() as client:
        client.resize(job.job_id, devices)
    time.sleep(Random(SEED + 2 * place + devices).uniform(0.0, 0.6))
    for inhabitant in inhabitants(lossy.paths):
        if inhabitant.node == nodes[place]:
            send(inhabitant.identity, signal.SIGKILL)
    assert_as_undisturbed(lossy, job, FEW)
    assert not [i for node in nodes for i in rank_processes(lossy, node)], f"SEED={SEED}"
    lossy.until_connected(6)


@pytest.mark.soak
def test_a_region_is_gone(lossy: Fleet) -> None:
    """All its nodes are silent: the job goes on in the other region, from the vault."""
    job = lossy.run("python", "job.py", FEW, files={"job.py": LOSSES}, devices=2)
    lossy.until_logs(job, "step 10 ")
    region = checkpoint(lossy, job).region
    nodes = [f"{region}-{k}" for k in (1, 2, 3)]
    try:
        for node in nodes:
            cable(lossy, node, "down")
        assert recovered(lossy, job, 1).region != region
    finally:
        for node in nodes:
            cable(lossy, node, "up")
    assert_as_undisturbed(lossy, job, FEW)
    lossy.until_connected(6)


@pytest.mark.soak
def test_the_newest_snapshot_is_damaged(lossy: Fleet) -> None:
    job = start(lossy, FEW)
    older = checkpoint(lossy, job).snapshot
    newest = lossy.suspend(job).snapshot
    spoil(lossy, newest)
    with lossy.client() as client:
        client.resume(job.job_id)
        view = client.wait(job.job_id, lambda j: j.state == "running", 120)
    assert view.snapshot == older and not view.older_snapshot
    assert_as_undisturbed(lossy, job, FEW)


def spoil(fleet: Fleet, snapshot_id: str) -> None:
    """Cut off the memory of its ranks, and remove what the archive has of them if it has it."""
    vault = fleet.paths.vault("north")
    for pages in (vault / "snapshots" / snapshot_id).rglob("pages-*.img"):
        os.truncate(pages, 4096)
    archived = vault / "archive" / "snapshots"
    for manifest in archived.rglob(f"{snapshot_id}*") if archived.exists() else ():
        manifest.write_bytes(b"not a manifest")


@pytest.mark.soak
def test_the_controller_is_killed_in_checkpoints(lossy: Fleet) -> None:
    job = start(lossy, MANY)
    for step in range(30, 150, 30):
        lossy.until_logs(job, f"step {step} ")
        with lossy.client() as client:
            client.checkpoint(job.job_id)
        before = lossy.process("controller")
        assert before is not None
        send(before, signal.SIGKILL)
        lossy.until_restarted("controller", before)
        lossy.wait(job, "running", timeout_s=120)
    assert_as_undisturbed(lossy, job, MANY)


@pytest.mark.soak
def test_the_controller_is_away_for_longer_than_the_fence(lossy: Fleet) -> None:
    """Nobody listens at its address: ranks go on, as always. An address that does not answer is another
    matter (the first test)."""
    job = start(lossy, MANY)
    before = lossy.process("supervisor"), lossy.process("controller")
    for identity in before:
        assert identity is not None
        send(identity, signal.SIGKILL)
    ranks = rank_processes(lossy, "north-1") + rank_processes(lossy, "north-2")
    assert ranks and not wait_for(lambda: any(map(is_stopped, ranks)), 15)
    lossy.up()
    assert_as_undisturbed(lossy, job, MANY)


@pytest.mark.soak
def test_periodic_checkpoints_of_a_job_that_asks_for_them(lossy: Fleet) -> None:
    job = lossy.cli(
        "run", "--devices", "2", "--checkpoint-every", "2", "--no-workdir", "--", "python", "-c",
        LOSSES, FEW,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    job_id = job.stdout.strip()
    with lossy.client() as client:
        view = client.wait(job_id, lambda j: j.checkpoints.taken >= 3, 120)
    assert view.checkpoints.every_s == 2 and view.checkpoints.pause_s
    lossy.wait(job_id, "completed", timeout_s=120)
    assert lossy.logs(job_id) == undisturbed(lossy, FEW)[0]


@pytest.mark.soak
def test_user_errors_are_retried_only_as_asked(lossy: Fleet) -> None:
    script = "import os, sys; open('tries', 'a').write('x'); print('try'); sys.exit(3)"
    job = lossy.run("python", "-c", script)
    failed = lossy.wait(job, "failed")
    assert failed.exit_code == 3 and lossy.logs(job) == "try\n"
    job = lossy.run("python", "-c", script, retries=2)
    failed = lossy.wait(job, "failed")
    assert failed.exit_code == 3 and lossy.logs(job) == "try\n"
    with lossy.client() as client:
        said = [event.message for event in client.events(job.job_id) if "retry" in event.message]
    assert len([words for words in said if "the beginning" in words]) == 2, said
