"""A job goes to another region and back, and others start from its snapshots. Only what a region lacks
travels, most of it while the job runs; nothing of that shows in what the jobs compute.

Buys: copy-ahead, transfers between archives, forks, and their faults, with real processes over real (slow,
cut) links. `make soak` has them; the way between two regions is also part of test_vault.py and
test_bit_exact.py.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks._link import limited
from midstep.client.types import JobView, MoveView
from midstep.substrate.local import network
from midstep.substrate.local.plan import PLAN
from midstep.substrate.local.processes import send, wait_for
from midstep.vault.archive.check import Finding, check
from midstep.vault.snapshots import Snapshots
from tests.fleet.harness import Fleet, MakeFleet

LOSSES = (Path(__file__).parent / "kinds" / "losses.py").read_text()
STEPS = "600"


@pytest.fixture(scope="module")
def regions(own_fleet: MakeFleet) -> Fleet:
    """A node each; jobs are saved only when asked."""
    shape = ("--regions", "2", "--nodes", "1", "--devices", "4")
    return own_fleet(*shape, "--checkpoint-every", "off")


@functools.cache
def undisturbed(fleet: Fleet) -> tuple[str, str]:
    """What both ranks print; the pace does not matter."""
    job = fleet.run("python", "job.py", STEPS, "0", files={"job.py": LOSSES}, devices=2)
    fleet.wait(job, "completed", timeout_s=300)
    return fleet.logs(job, 0), fleet.logs(job, 1)


def start(fleet: Fleet) -> JobView:
    """It has more to do than any of the tests takes."""
    job = fleet.run("python", "job.py", STEPS, "0.2", files={"job.py": LOSSES}, devices=2, region="north")
    fleet.until_logs(job, "step 5 ")
    return job


def assert_as_undisturbed(fleet: Fleet, job: JobView | str) -> None:
    fleet.wait(job, "completed", timeout_s=300)
    name = job if isinstance(job, str) else job.job_id
    assert (fleet.logs(name, 0), fleet.logs(name, 1)) == undisturbed(fleet)


def last(view: JobView, kind: str) -> MoveView:
    return [move for move in view.moves if move.kind == kind][-1]


def travelled(move: MoveView) -> tuple[int, int]:
    """Bytes that came, and that were there."""
    (step,) = [step for step in move.steps if step.step.startswith("transfer@")]
    return step.nbytes, step.known_bytes


def assert_whole(fleet: Fleet) -> None:
    """Nothing is damaged. (A collector that removes packs while we look makes it seem so.)"""

    def damage(region: str) -> list[Finding]:
        archive = Snapshots(fleet.paths.vault(region)).archive()
        assert archive is not None
        return check(archive, deep=True)

    for region in ("north", "south"):
        assert wait_for(lambda it=region: not damage(it), 60, every_s=2), damage(region)


@pytest.mark.timeout(600)
@pytest.mark.soak
def test_there_and_back_and_twice_at_once(regions: Fleet) -> None:
    job = start(regions)
    there = regions.migrate(job, "south", copy_ahead=True)
    ahead, cut = last(there, "copy-ahead"), last(there, "migrate")
    assert ahead.ok and cut.ok and there.region == "south"
    first = ahead.steps[0].nbytes
    assert first > 10e6, "all of it had to travel once"
    assert travelled(cut)[0] < first / 2 and travelled(cut)[1] > first
    back = last(regions.migrate(job, "north"), "migrate")
    assert travelled(back)[0] < first / 2, "most of it is there since it was there"
    assert regions.cli("checkpoint", job.job_id).returncode == 0
    done = regions.cli("run", "--from", job.job_id, "--region", "south", "--devices", "1", "--name", "twin")
    assert done.returncode == 0, done.stderr
    assert_as_undisturbed(regions, job)
    assert_as_undisturbed(regions, "twin")
    assert_whole(regions)


def kill(fleet: Fleet, name: str) -> None:
    before = fleet.process(name)
    assert before is not None
    send(before, signal.SIGKILL)
    fleet.until_restarted(name, before)


def cut_link(fleet: Fleet) -> None:
    veth = PLAN.validate_json(fleet.paths.fleet.read_bytes()).node("south-1").veth
    network.ip(f"link set {veth} down")
    time.sleep(12)  # longer than the controller waits for an agent's word
    network.ip(f"link set {veth} up")


FAULTS: dict[str, Callable[[Fleet], None]] = {
    "controller": lambda fleet: kill(fleet, "controller"),
    "agent": lambda fleet: kill(fleet, "agent-south-1"),
    "link": cut_link,
}


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("copy_ahead", [True, False], ids=["ahead", "standing still"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_in_the_middle_of_a_transfer(own_fleet: MakeFleet, fault: str, copy_ahead: bool) -> None:
    fleet = own_fleet("--regions", "2", "--nodes", "1", "--devices", "4", "--checkpoint-every", "off")
    job = start(fleet)
    with limited(fleet.paths.root, ["south-1"], 40):
        with fleet.client() as client:
            client.migrate(job.job_id, "south", copy_ahead)
            reason = lambda: client.job(job.job_id).reason  # noqa: E731
            assert wait_for(lambda: "have come" in reason() and " 0.0 kB have" not in reason(), 120), reason()
        FAULTS[fault](fleet)
        with fleet.client() as client:
            view = client.wait(job.job_id, lambda j: j.state == "running" and j.region == "south", 300)
    assert last(view, "migrate").ok
    assert_as_undisturbed(fleet, job)
    assert_whole(fleet)
    fleet.down("--now")


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("copy_ahead", [True, False], ids=["ahead", "standing still"])
def test_the_other_region_is_gone_in_the_middle(own_fleet: MakeFleet, copy_ahead: bool) -> None:
    """The job runs on where it is, or goes back to where it was: it waits for no region that is gone."""
    shape = ("--regions", "2", "--nodes", "1", "--devices", "4", "--lost-node-after", "20")
    fleet = own_fleet(*shape, "--checkpoint-every", "off")
    job = start(fleet)
    veth = PLAN.validate_json(fleet.paths.fleet.read_bytes()).node("south-1").veth
    with limited(fleet.paths.root, ["south-1"], 40), fleet.client() as client:
        client.migrate(job.job_id, "south", copy_ahead)
        client.wait(job.job_id, lambda view: "have come" in view.reason, 120)
        network.ip(f"link set {veth} down")
        try:
            assert wait_for(lambda: not all(node.connected for node in client.nodes()), 60)
            view = client.wait(job.job_id, lambda view: view.state == "running", 180)
            assert view.region == "north" and (copy_ahead or not last(view, "migrate").ok), view
            fleet.wait(job, "completed", timeout_s=300)
        finally:
            network.ip(f"link set {veth} up")
    assert {rank.node for rank in view.ranks} == {"north-1"}
    assert_as_undisturbed(fleet, job)
    fleet.down("--now")


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_suspended_and_cancelled_while_it_is_copied(regions: Fleet) -> None:
    for verb, state in (("suspend", "suspended"), ("cancel", "cancelled")):
        job = start(regions)
        with limited(regions.paths.root, ["south-1"], 10):
            with regions.client() as client:
                client.migrate(job.job_id, "south")
                client.wait(job.job_id, lambda view: "have come" in view.reason, 120)
            assert regions.cli(verb, job.job_id).returncode == 0
            assert regions.wait(job, state).state == state
        if verb == "suspend":
            regions.resume(job)
            assert_as_undisturbed(regions, job)
