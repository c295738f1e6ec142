"""A job that is started from a snapshot of another: what may be changed, and that the snapshot stays as long
as it may be needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midstep.vault.snapshots import Snapshots
from tests.control.fake_agent import node
from tests.control.harness import Fleet, running, until


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running(tmp_path) as made:
        await made.add(node("n1"))
        yield made


async def suspended(fleet: Fleet, **fields: Any) -> tuple[str, str]:
    """A job, and its snapshot."""
    job = await fleet.submit(**fields)
    await fleet.reaches(job, "running")
    await fleet.post(job, "suspend")
    view = await fleet.reaches(job, "suspended")
    return job, view["snapshot"]


async def asked(fleet: Fleet, status: int, **body: Any) -> dict[str, Any]:
    response = await fleet.http.post("/v1/jobs", json=body)
    assert response.status_code == status, response.text
    return response.json()


def there(fleet: Fleet, snapshot: str) -> bool:
    return Snapshots(fleet.root / "east").is_raw(snapshot)


@pytest.mark.parametrize("by", ["job", "snapshot"])
async def test_it_goes_on_from_the_snapshot_as_another_job(fleet: Fleet, by: str) -> None:
    job, snapshot = await suspended(fleet, ranks=2, devices=2, env={"A": "1"}, name="first")
    made = await asked(
        fleet, 201, from_snapshot=snapshot if by == "snapshot" else "first", devices=1, name="b"
    )
    fork = made["job_id"]
    assert fork != job and made["name"] == "b" and made["command"] == ["python", "train.py"]
    assert (await fleet.reaches(fork, "running"))["devices_now"] == 1
    wanted = fleet.agents["n1"].wanted[fork]
    assert wanted.spec.env == {"A": "1"} and wanted.spec.world_size == 2
    record = fleet.region.service.records[fork]
    assert record.source is not None and record.source.snapshot_id == snapshot
    assert record.epoch > fleet.region.service.records[job].epoch, "its mailboxes obey no earlier one"
    assert record.store == {"key": "dmFsdWU="} and record.homes == ((0, 1),)
    assert (await fleet.job(job))["state"] == "suspended"


async def test_the_snapshot_stays_until_nobody_needs_it(fleet: Fleet) -> None:
    job, snapshot = await suspended(fleet)
    fork = (await asked(fleet, 201, from_snapshot=job))["job_id"]
    await fleet.reaches(fork, "running")
    await fleet.post(job, "cancel")
    await fleet.reaches(job, "cancelled")
    assert there(fleet, snapshot), "the fork would go back to it"
    await fleet.post(fork, "cancel")
    await fleet.reaches(fork, "cancelled")
    await until(lambda: not there(fleet, snapshot))


async def test_a_fork_that_ends_leaves_its_origin_alone(fleet: Fleet) -> None:
    job, snapshot = await suspended(fleet)
    fork = (await asked(fleet, 201, from_snapshot=snapshot))["job_id"]
    await fleet.reaches(fork, "running")
    await fleet.post(fork, "cancel")
    await fleet.reaches(fork, "cancelled")
    await fleet.post(job, "resume")
    await fleet.reaches(job, "running")
    assert there(fleet, snapshot)


async def test_what_cannot_be(fleet: Fleet) -> None:
    job, snapshot = await suspended(fleet, ranks=2, devices=2)
    for fields, words in (
        ({"command": ["x"]}, "command"),
        ({"env": {"A": "2"}}, "env"),
        ({"ranks": 3}, "world size cannot change"),
        ({"devices": 4}, "give 1 to 2"),
        ({"threads": 2}, "threads"),
    ):
        problem = await asked(fleet, 422, from_snapshot=job, **fields)
        assert words in problem["title"] + problem["detail"] + problem["hint"], problem
    assert (await asked(fleet, 404, from_snapshot=f"{job}-99"))["code"] == "no_such_snapshot"
    assert (await asked(fleet, 404, from_snapshot="nobody"))["code"] == "no_such_job"
    fresh = await fleet.submit()
    problem = await asked(fleet, 409, from_snapshot=fresh)
    assert problem["code"] == "no_snapshot" and "midstep checkpoint" in problem["hint"]
    (Snapshots(fleet.root / "east").path(snapshot) / "home-0/work/out.txt").write_text("longer than it was")
    assert (await asked(fleet, 409, from_snapshot=snapshot))["code"] == "no_snapshot"
    await fleet.post(job, "cancel")
    await fleet.reaches(job, "cancelled")
    problem = await asked(fleet, 409, from_snapshot=job)
    assert "go when it has ended" in problem["hint"]


async def test_a_job_that_nobody_knows_goes_on_as_its_snapshot_says(tmp_path: Path) -> None:
    """The controller's disk is lost; what is in the vault is not."""
    async with running(tmp_path) as made:
        await made.add(node("n1"))
        job, snapshot = await suspended(made, ranks=2, devices=2, env={"A": "1"}, name="first")
        before = made.region.service.records[job]
    async with running(tmp_path, state="another") as fleet:
        await fleet.add(node("n1"))
        assert (await asked(fleet, 404, from_snapshot=job + "-7"))["code"] == "no_such_job"
        made_anew = await asked(fleet, 201, from_snapshot=snapshot)
        fork = made_anew["job_id"]
        assert made_anew["name"] == "first" and fork != job
        await fleet.reaches(fork, "running")
        record = fleet.region.service.records[fork]
        wanted = fleet.agents["n1"].wanted[fork]
        assert record.source is not None and record.source.snapshot_id == snapshot
        assert wanted.spec.env == {"A": "1"} and wanted.spec.command == before.spec.command
        assert (record.homes, record.store) == (before.homes, before.store)
        cut = Snapshots(tmp_path / "east").manifest(snapshot)
        assert record.epoch > cut.epoch, "its mailboxes obey no earlier one"


async def test_a_snapshot_that_does_not_say_how_its_job_was_started(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        await made.add(node("n1"))
        _, snapshot = await suspended(made)
    path = Snapshots(tmp_path / "east").path(snapshot) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["job"]
    path.write_text(json.dumps(manifest))
    async with running(tmp_path, state="another") as fleet:
        await fleet.add(node("n1"))
        problem = await asked(fleet, 409, from_snapshot=snapshot)
        assert problem["code"] == "no_snapshot" and "does not say how its job was started" in problem["title"]
        assert (await fleet.http.get("/v1/jobs")).json() == []
