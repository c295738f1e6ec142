"""Resizing: whatever number of devices a job has, from one moment to the next, every loss digit and the final
weights stay those of the undisturbed run.

Buys: the 4-rank example over devices, nodes and regions, with agents and the controller killed in the middle.
SEED in the environment repeats the sizes and pauses.
"""

from __future__ import annotations

import os
import signal
import time
from random import Random

import pytest

from midstep.client.errors import ClientError, Conflict, Refused
from midstep.client.types import JobView
from midstep.substrate.local.processes import send
from tests.fleet.harness import ENDED, Fleet, MakeFleet
from tests.fleet.test_bit_exact import CASES, EXAMPLES, LM, Case, calm, results, run_to_the_end

SEED = int(os.environ.get("SEED", time.time_ns() % 100_000))
CASE = CASES[2]
LONG = Case((*LM, "400"), 4)


def start(fleet: Fleet, case: Case, **fields: object) -> JobView:
    """Under way, in the north unless it is said otherwise."""
    job = fleet.run(*case.launched(("torchrun",)), files=EXAMPLES, **{"region": "north", **fields})
    fleet.until_logs(job, "step ")
    return job


def assert_same(fleet: Fleet, job: JobView, case: Case) -> None:
    """It ends with the digits of the run that nobody disturbed."""
    fleet.wait(job, "completed", timeout_s=240)
    assert results(fleet.logs(job)) == calm(fleet, case), f"SEED={SEED}"


def assert_nothing_dumped(before: JobView, after: JobView) -> None:
    """By the last resize: no rank has changed its node."""
    assert [r.node for r in before.ranks] == [r.node for r in after.ranks]
    last = [m for m in after.moves if m.kind == "resize"][-1]
    assert not {"freeze", "dump", "restore"} & {s.step.partition("@")[0] for s in last.steps}


@pytest.mark.timeout(300)
def test_every_size(fleet: Fleet) -> None:
    """Starts on two devices; within nodes, then over nodes."""
    job = start(fleet, CASE, devices=2)
    wide = fleet.resize(job, 4)
    assert len({(r.node, r.devices) for r in wide.ranks}) == 4
    assert_nothing_dumped(wide, fleet.resize(job, 3))
    for devices in (1, 4):
        fleet.resize(job, devices)
    assert_same(fleet, job, CASE)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_kill_in_the_middle(fleet: Fleet) -> None:
    """Over nodes while an agent, then the controller is killed."""
    job = start(fleet, CASE, devices=2)
    fleet.resize(job, 4)
    with fleet.client() as client:
        client.resize(job.job_id, 1)
    kill(fleet, "agent-north-2")
    fleet.until_connected()
    settle(fleet, job, 1)
    with fleet.client() as client:
        client.resize(job.job_id, 4)
    kill(fleet, "controller")
    fleet.until_connected()
    settle(fleet, job, 4)
    assert_same(fleet, job, CASE)


def kill(fleet: Fleet, name: str) -> None:
    """By SIGKILL; the supervisor starts another."""
    process = fleet.process(name)
    assert process is not None
    send(process, signal.SIGKILL)
    fleet.until_restarted(name, process)


def settle(fleet: Fleet, job: JobView, devices: int) -> None:
    """What was under way comes to its end, or is given up; then it is asked for again."""
    for _ in range(3):
        view = fleet.wait(job, "running", *ENDED)
        if view.state in ENDED or view.devices_now == devices:
            return
        if view.devices_wanted == devices:  # still on its way to it
            time.sleep(0.2)
            continue
        try:
            fleet.resize(job, devices)
        except Conflict:
            continue
    view = fleet.wait(job, "running", *ENDED)
    assert view.devices_now == devices or view.state in ENDED, view


def test_what_is_refused_and_what_waits(fleet: Fleet) -> None:
    job = fleet.run("sleep", "1000", ranks=3, devices=2, node="north-1")
    fleet.wait(job, "running")
    with fleet.client() as client:
        for devices in (0, -1, 4):
            with pytest.raises(Refused, match=f"1 to 3 devices, not {devices}"):
                client.resize(job.job_id, devices)
        with pytest.raises(Refused, match="there are 2"):
            client.resize(job.job_id, 3)
        with pytest.raises(Conflict, match="has 2 devices already"):
            client.resize(job.job_id, 2)
        with pytest.raises(ClientError, match="no node or region"):
            client.resize(job.job_id, 1, "nowhere")
    fleet.resize(job, 1)
    fleet.suspend(job)
    with fleet.client() as client:
        view = client.resize(job.job_id, 2)
        assert (view.state, view.devices_now, view.devices_wanted) == ("suspended", 0, 2)
    assert fleet.resume(job).devices_now == 2
    done = fleet.cli("resize", job.job_id, "--devices", "1")
    assert done.returncode == 0 and "on 1 device" in done.stderr, done.stderr
    assert "1/3" in fleet.cli("ps").stdout
    fleet.cancel(job)


def test_to_another_region_with_fewer_devices(fleet: Fleet) -> None:
    job = fleet.run("sleep", "1000", ranks=2, devices=2, region="north")
    fleet.wait(job, "running")
    view = fleet.resize(job, 1, "south")
    assert (view.region, view.devices_now) == ("south", 1)
    fleet.cancel(job)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shape", [("1", "4"), ("2", "2"), ("4", "1")], ids="x".join)
def test_many_sizes(own_fleet: MakeFleet, shape: tuple[str, str]) -> None:
    """Nodes x devices: within one node, over two, and with a node for each rank."""
    fleet = own_fleet("--regions", "1", "--nodes", shape[0], "--devices", shape[1])
    quiet = run_to_the_end(fleet, LONG, 0)[0]
    chance, resized = Random(SEED), 0
    while resized < 40:
        job = start(fleet, LONG, devices=chance.randint(1, 4))
        while fleet.wait(job, "running", *ENDED).state == "running":
            time.sleep(chance.uniform(0.1, 1.0))
            try:
                fleet.resize(job, chance.randint(1, 4))
                resized += 1
            except Conflict:  # it has that many, or has ended
                continue
        fleet.wait(job, "completed")
        assert results(fleet.logs(job)) == quiet, f"SEED={SEED}"
