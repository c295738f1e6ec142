"""Jobs outlive what is killed around them, and a fleet that is taken down and started again."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from midstep.substrate.local.nodes import inhabitants
from midstep.substrate.local.processes import send, wait_for
from tests.fleet.harness import Fleet, MakeFleet

COUNT = "import time\nfor i in range(10**6): print(i, flush=True); time.sleep(0.05)\n"


def counted(fleet: Fleet, job: str) -> int:
    """How far the job has counted. Every number must be there once, in order: none lost, none repeated."""
    lines = fleet.logs(job).split("\n")[:-1]
    assert lines == [str(i) for i in range(len(lines))]
    return len(lines)


def until_it_counts_on(fleet: Fleet, job: str, timeout_s: float = 60.0) -> None:
    before = counted(fleet, job)
    assert wait_for(lambda: counted(fleet, job) > before + 3, timeout_s, every_s=0.1), fleet.json("show", job)


@pytest.mark.parametrize(
    "victims",
    [
        ("controller",),
        ("agent",),
        ("holder",),
        ("agent", "holder"),
        ("supervisor", "controller", "agent", "holder"),
    ],
    ids="+".join,
)
def test_a_job_runs_on_when_our_processes_are_killed(fleet: Fleet, victims: tuple[str, ...]) -> None:
    job = fleet.run("python", "-c", COUNT, node="north-1").job_id
    fleet.until_logs(job, "3\n")
    names = [v if v in ("supervisor", "controller") else f"{v}-north-1" for v in victims]
    killed = {name: fleet.process(name) for name in names}
    for identity in killed.values():
        assert identity is not None
        send(identity, signal.SIGKILL)
    if "supervisor" in victims:
        fleet.up()
    for name, identity in killed.items():
        assert identity is not None
        fleet.until_restarted(name, identity)
    fleet.until_connected()
    until_it_counts_on(fleet, job)
    assert fleet.json("show", job)["state"] in ("running", "reconnecting")
    fleet.cancel(job)
    counted(fleet, job)


@pytest.mark.parametrize("saved", [True, False], ids=["with a snapshot", "without"])
def test_a_job_whose_processes_are_killed_from_outside_goes_on(fleet: Fleet, saved: bool) -> None:
    job = fleet.run("python", "-c", COUNT, node="north-1").job_id
    fleet.until_logs(job, "3\n")
    if saved:
        fleet.suspend(job)
        fleet.resume(job)
        until_it_counts_on(fleet, job)
    for pid in [there.identity.pid for there in inhabitants(fleet.paths)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # others end with the first
            if b"midstep-init" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    with fleet.client() as client:
        assert wait_for(lambda: "lost" in {event.kind for event in client.events(job, limit=1000)}, 30)
    fleet.wait(job, "running")
    until_it_counts_on(fleet, job)
    fleet.cancel(job)
    counted(fleet, job)


def test_jobs_survive_down_and_up(own_fleet: MakeFleet) -> None:
    fleet = own_fleet("--regions", "1", "--nodes", "2", "--devices", "1")
    job = fleet.run("python", "-c", COUNT).job_id
    done = fleet.run("sh", "-c", "echo kept > file", name="done").job_id
    fleet.wait(done, "completed")
    fleet.until_logs(job, "3\n")
    fleet.down()
    assert not inhabitants(fleet.paths)
    fleet.up()
    assert fleet.json("show", job)["state"] == "suspended"
    assert fleet.json("show", done)["state"] == "completed"
    fleet.resume(job)
    until_it_counts_on(fleet, job)
    fleet.down("--now")  # as when the power fails
    assert not inhabitants(fleet.paths)
    fleet.up()
    fleet.wait(job, "running")  # from its snapshot, by itself
    until_it_counts_on(fleet, job)
