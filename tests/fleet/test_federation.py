"""A federated fleet with real processes: a job is handed over from one region's controller to the other's and
back, with any of the controllers killed on the way; a job that waits goes where devices are free; a region
whose global controller is gone goes on alone. Losses and weights stay those of an undisturbed run.

Buys: the three levels as processes of their own. tests/federation has every lost message.
"""

from __future__ import annotations

import functools
import signal
import time
from pathlib import Path

import pytest

from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView
from midstep.model.tiers import Tier
from midstep.substrate.local.processes import send, wait_for
from tests.fleet.harness import ENDED, Fleet, MakeFleet

LOSSES = (Path(__file__).parent / "kinds" / "losses.py").read_text()
STEPS = "200"


@pytest.fixture(scope="module")
def federated(own_fleet: MakeFleet) -> Fleet:
    shape = ("--regions", "2", "--nodes", "1", "--devices", "2", "--federated")
    return own_fleet(*shape, "--checkpoint-every", "off", "--rest", "2")


def start(fleet: Fleet, pause: str, **fields: object) -> JobView:
    return fleet.run("python", "job.py", STEPS, pause, files={"job.py": LOSSES}, devices=2, **fields)


@functools.cache
def undisturbed(fleet: Fleet) -> tuple[str, str]:
    """What both ranks print; the pace does not matter."""
    job = start(fleet, "0")
    fleet.wait(job, "completed", timeout_s=200)
    return fleet.logs(job, 0), fleet.logs(job, 1)


def kill(fleet: Fleet, name: str) -> None:
    before = fleet.process(name)
    assert before is not None, name
    send(before, signal.SIGKILL)
    fleet.until_restarted(name, before)


def arrives(fleet: Fleet, job: JobView, region: str) -> JobView:
    with fleet.client() as client:
        done = lambda j: (j.state == "running" and j.region == region) or j.state in ENDED  # noqa: E731
        view = client.wait(job.job_id, done, 120)
        story = [f"{it.at_s:.1f} {it.kind}: {it.message}" for it in client.events(job.job_id, limit=1000)]
    assert view.region == region, "\n".join((str(view), *story))
    return view


@pytest.mark.timeout(400)
@pytest.mark.parametrize("copy_ahead", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_from_controller_to_controller_and_back(federated: Fleet, copy_ahead: bool) -> None:
    fleet = federated
    expected = undisturbed(fleet)
    job = start(fleet, "0.5" if copy_ahead else "0.06", region="north")
    fleet.until_logs(job, "step 20 ")
    with fleet.client() as client:
        client.migrate(job.job_id, "south", copy_ahead=copy_ahead)
    kill(fleet, "global")
    view = arrives(fleet, job, "south")
    assert ("copy-ahead" in [m.kind for m in view.moves if m.ok]) is copy_ahead
    with fleet.client() as client:
        client.migrate(job.job_id, "north", copy_ahead=False)
    kill(fleet, "controller-south")
    kill(fleet, "controller-north")
    arrives(fleet, job, "north")
    done = fleet.wait(job, "completed", timeout_s=200)
    assert (fleet.logs(job, 0), fleet.logs(job, 1)) == expected
    assert done.epoch > 2
    listed = fleet.json("ps", "--all")
    assert [row["job_id"] for row in listed].count(job.job_id) == 1, "it is in one region"


def alone(fleet: Fleet, region: str) -> FleetClient:
    """A region's controller, asked itself."""
    return FleetClient.of_state(fleet.paths.controller_of(region), patience_s=30)


@pytest.mark.timeout(400)
@pytest.mark.soak
def test_a_region_without_the_others_goes_on_alone(federated: Fleet) -> None:
    fleet = federated
    expected = undisturbed(fleet)
    low = start(fleet, "0.05", region="north", tier=Tier.BASIC, name="low")
    fleet.until_logs(low, "step 10 ")
    for name in ("controller-south", "global"):  # stopped: nothing starts them again
        found = fleet.process(name)
        assert found is not None
        send(found, signal.SIGSTOP)
        if name == "controller-south":
            assert wait_for(lambda: "region south cannot be reached" in fleet.cli("ps").stderr, 30)
    try:
        with alone(fleet, "north") as north:
            request = JobRequest(("sleep", "3"), devices=2, tier=Tier.PREMIUM, elastic=False, name="high")
            high = north.submit(request)
            view = north.wait(high.job_id, lambda j: j.state in ("running", *ENDED), 90)
            assert view.state == "running", view.reason
            lowly = north.wait(low.job_id, lambda j: j.devices_now < 2, 90)
            assert lowly.devices_now < 2, "its devices went to the guaranteed job"
            north.wait(high.job_id, lambda j: j.state in ENDED, 90)
            north.wait(low.job_id, lambda j: j.state in ("running", "completed"), 90)
    finally:
        for name in ("global", "controller-south"):
            found = fleet.process(name)
            assert found is not None
            send(found, signal.SIGCONT)
    fleet.wait(low, "completed", timeout_s=200)
    assert (fleet.logs(low, 0), fleet.logs(low, 1)) == expected
    assert {row["name"] for row in fleet.json("ps", "--all")} >= {"low", "high"}, "the fleet hears of it"


@pytest.mark.timeout(400)
@pytest.mark.soak
def test_a_job_that_waits_goes_to_the_other_region(federated: Fleet) -> None:
    """It has run, and was suspended for another one: its snapshot goes with it."""
    fleet = federated
    expected = undisturbed(fleet)
    south = fleet.run("sleep", "1000", devices=2, region="south", tier=Tier.BASIC, elastic=False)
    fleet.wait(south, "running")
    job = start(fleet, "0.05", tier=Tier.BASIC, elastic=False)
    fleet.until_logs(job, "step 20 ")
    with fleet.client() as client:
        assert client.job(job.job_id).region == "north"
    guaranteed = fleet.run("sleep", "1000", devices=2, region="north", tier=Tier.PREMIUM, elastic=False)
    fleet.wait(guaranteed, "running")
    fleet.wait(job, "queued")
    time.sleep(1)
    fleet.cancel(south.job_id)
    view = arrives(fleet, job, "south")
    assert [m.kind for m in view.moves if m.ok][-1] == "migrate"
    fleet.cancel(guaranteed.job_id)
    fleet.wait(job, "completed", timeout_s=200)
    assert (fleet.logs(job, 0), fleet.logs(job, 1)) == expected
    with fleet.client() as client:
        history = [event.message for event in client.events(job=job.job_id)]
    assert any("devices are free in south" in message for message in history), history
