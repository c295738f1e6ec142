"""The scheduler with real jobs: under a changing load a job of little rank is shrunk, suspended, resumed and
grown back by itself, with the controller killed in the middle; a node is drained. Its losses stay those of an
undisturbed run.

Buys: plans of the policy carried out by real processes, and that it all converges.
"""

from __future__ import annotations

import time
from random import Random

import pytest

from midstep.client.types import JobView
from midstep.model.tiers import Tier
from midstep.substrate.local.processes import wait_for
from tests.fleet.harness import ENDED, Fleet, MakeFleet
from tests.fleet.test_bit_exact import EXAMPLES, LM, Case, calm, results
from tests.fleet.test_resize import SEED, kill

CASE = Case((*LM, "120"), 4)


@pytest.fixture(scope="module")
def restless(own_fleet: MakeFleet) -> Fleet:
    """A fleet whose scheduler does not wait for long before it moves a job again."""
    return own_fleet("--regions", "2", "--nodes", "2", "--devices", "2", "--rest", "2")


def sleeper(fleet: Fleet, devices: int, tier: str, region: str, **fields: object) -> JobView:
    """A job that only holds devices."""
    return fleet.run("sleep", "1000", devices=devices, tier=Tier(tier), region=region, **fields)


def until(fleet: Fleet, job: JobView, devices: int, *states: str) -> JobView:
    """It has settled with so many devices."""
    wanted = states or ("running",)
    with fleet.client() as client:
        return client.wait(
            job.job_id,
            lambda j: (j.state in wanted and j.devices_now == devices) or j.state in ENDED,
            timeout_s=120,
        )


@pytest.mark.timeout(300)
def test_a_changing_load(restless: Fleet) -> None:
    fleet = restless
    expected = calm(fleet, CASE)
    other = sleeper(fleet, 4, "standard", "south", elastic=False)
    fleet.wait(other, "running")
    job = fleet.run(
        *CASE.launched(("torchrun",)), files=EXAMPLES, tier=Tier.BASIC, region="north", name="lowly"
    )
    fleet.until_logs(job, "step ")
    assert until(fleet, job, 4).devices_now == 4

    first = sleeper(fleet, 2, "premium", "north")
    kill(fleet, "controller")
    assert until(fleet, first, 2).state == "running"
    assert until(fleet, job, 2).state == "running", "it was shrunk"

    second = sleeper(fleet, 2, "premium", "north")
    fleet.wait(second, "running")
    assert until(fleet, job, 0, "queued").state == "queued", "there was nothing left for it"
    with fleet.client() as client:
        queued = client.queue()
        assert [one.job_id for one in queued] == [job.job_id]
        assert client.why(job.job_id).would_run_if

    fleet.cancel(first)
    assert until(fleet, job, 2).state == "running", "it goes on"
    fleet.cancel(second)
    assert until(fleet, job, 4).state in ("running", "completed"), "and has all of its devices back"
    fleet.wait(job, "completed", timeout_s=200)
    assert results(fleet.logs(job)) == expected
    with fleet.client() as client:
        decided = [(one.action, one.reason) for one in client.why(job.job_id).decisions]
        received = client.job(job.job_id).received
    assert ("suspend", "gave") in decided and ("resize", "gave") in decided
    assert received.hour is not None and 0 < received.hour < 1
    fleet.cancel(other)


@pytest.mark.timeout(300)
def test_a_drain(restless: Fleet) -> None:
    fleet = restless
    case = Case((*LM, "60"), 2)
    expected = calm(fleet, case)
    job = fleet.run(*case.launched(("torchrun",)), files=EXAMPLES, region="north")
    fleet.until_logs(job, "step ")
    here = fleet.wait(job, "running").ranks[0].node
    still = sleeper(fleet, 1, "basic", "north")  # so that there is room for only a part of it elsewhere
    fleet.wait(still, "running")
    assert fleet.cli("plan", "drain", here).returncode == 0
    done = fleet.cli("drain", here)
    assert done.returncode == 0, done.stderr
    with fleet.client() as client:
        node = next(node for node in client.nodes() if node.name == here)
        assert node.cordoned and not any(device.jobs for device in node.devices)
    fleet.wait(job, "completed", timeout_s=200)
    assert results(fleet.logs(job)) == expected
    assert fleet.cli("uncordon", here).returncode == 0
    fleet.cancel(still)


def test_what_the_scheduler_is_asked(restless: Fleet) -> None:
    """The commands, as a user types them."""
    fleet = restless
    assert fleet.cli("quota", "set", "vision", "--devices", "4").returncode == 0
    assert fleet.cli("quota", "set", "vision/det", "--devices", "5").returncode == 5
    assert [q["devices"] for q in fleet.json("quota")] == [4]
    assert fleet.cli("quota", "rm", "vision").returncode == 0
    small = fleet.cli("plan", "submit", "--devices", "2", "--tier", "premium", "--", "sleep", "1")
    assert small.returncode == 0 and "it would start" in small.stdout
    assert fleet.cli("plan", "submit", "--devices", "9", "--", "sleep", "1").returncode == 6
    assert wait_for(lambda: "no job waits" in fleet.cli("queue").stderr, 30.0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_crowd_with_kills(restless: Fleet) -> None:
    """Jobs of all tiers and sizes come and go while controllers and agents are killed: all end with their own
    digits, and the books agree with the devices. SEED in the environment repeats the choices."""
    fleet, chance = restless, Random(SEED)
    cases = {ranks: Case((*LM, "60"), ranks) for ranks in (1, 2, 4)}
    expected = {ranks: calm(fleet, case) for ranks, case in cases.items()}
    jobs: list[tuple[int, JobView]] = []
    for _ in range(12):
        ranks = chance.choice((1, 2, 2, 4))
        tier = chance.choice((Tier.BASIC, Tier.BASIC, None))
        launched = cases[ranks].launched(("torchrun",))
        jobs.append((ranks, fleet.run(*launched, files=EXAMPLES, tier=tier)))
        time.sleep(chance.uniform(0.0, 6.0))
        if chance.random() < 0.3:
            kill(fleet, chance.choice(("controller", "agent-north-1", "agent-south-2")))
    for ranks, job in jobs:
        fleet.wait(job, "completed", timeout_s=900)
        assert results(fleet.logs(job)) == expected[ranks], f"SEED={SEED}"
    with fleet.client() as client:
        assert client.queue() == []
        assert not any(device.jobs for node in client.nodes() for device in node.devices)
