"""Two jobs that take half a device each, on one device at the same time: one is suspended and resumed beside
the other, and later their node is drained. Both have the losses of an undisturbed run.

Buys: that jobs which share a device leave each other alone, in processes, snapshots and files.
"""

from __future__ import annotations

import pytest

from midstep.client.types import JobView, NodeView
from tests.fleet.harness import Fleet, MakeFleet
from tests.fleet.test_bit_exact import EXAMPLES, LM, Case, calm, results

CASE = Case((*LM, "900"))


@pytest.fixture(scope="module")
def narrow(own_fleet: MakeFleet) -> Fleet:
    """Two nodes of one device."""
    return own_fleet("--regions", "1", "--nodes", "2", "--devices", "1", "--rest", "2")


def devices(fleet: Fleet) -> dict[str, dict[str, float]]:
    """Node -> the parts that jobs have of its device."""
    with fleet.client() as client:
        nodes: list[NodeView] = client.nodes()
    return {node.name: device.parts for node in nodes for device in node.devices if device.jobs}


def node_of(job: JobView) -> str:
    return job.ranks[0].node


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_halves_of_a_device(narrow: Fleet) -> None:
    fleet = narrow
    expected = calm(fleet, CASE)
    first, second = (
        fleet.run(*CASE.launched(()), files=EXAMPLES, devices=0.5, name=name) for name in ("first", "second")
    )
    for job in (first, second):
        fleet.until_logs(job, "step ")
    here = node_of(fleet.wait(first, "running"))
    assert devices(fleet) == {here: {first.job_id: 0.5, second.job_id: 0.5}}, "the other node is free"
    whole = fleet.run("sleep", "1000", name="whole")
    fleet.wait(whole, "running")

    fleet.suspend(first)
    assert devices(fleet)[here] == {second.job_id: 0.5}
    seen = fleet.logs(second)
    fleet.until_logs(second, f"step {len(results(seen).splitlines()) + 1} ")
    fleet.resume(first)
    assert devices(fleet)[here] == {first.job_id: 0.5, second.job_id: 0.5}
    table = fleet.cli("nodes").stdout
    assert "(0.5)" in table and "0.5 of a device" in fleet.cli("show", "first").stdout
    assert "0.5/1" in fleet.cli("top", "--once").stdout

    fleet.cancel(whole)
    done = fleet.cli("drain", here)
    assert done.returncode == 0, done.stderr
    for job in (first, second):
        ended = fleet.wait(job, "completed", timeout_s=200)
        assert results(fleet.logs(job)) == expected
        assert {move.kind for move in ended.moves if move.ok} >= {"migrate"}
    assert fleet.cli("uncordon", here).returncode == 0


def test_what_is_no_part(narrow: Fleet) -> None:
    for words, code, says in (
        (("--devices", "0"), 2, "neither a whole number of 1 or more nor between 0 and 1"),
        (("--devices", "-0.5"), 2, "neither a whole number"),
        (("--devices", "1.5"), 2, "neither a whole number"),
        (("--devices", "nan"), 2, "neither a whole number"),
        (("--devices", "0.001"), 6, "0.001 is less than 0.01 of a device"),
        (("--devices", "0.5", "--ranks", "2"), 6, "2 ranks cannot have 0.5 of a device"),
    ):
        done = narrow.cli("run", "--no-workdir", *words, "--", "true")
        assert done.returncode == code and says in " ".join(done.stderr.split()), done.stderr
        assert "Traceback" not in done.stderr
