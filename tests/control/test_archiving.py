"""The controller has committed snapshots archived by the archiver process, drops raw folders that are not
needed, keeps two snapshots of a living job, and goes on after a restart."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from midstep.vault.archive import fence
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import check
from midstep.vault.snapshots import Snapshots
from tests.control.fake_agent import node
from tests.control.harness import Fleet, running, until

ARCHIVER = (sys.executable, "-m", "midstep.app.archiver", "--eager")


def vault(root: Path, region: str = "east") -> Snapshots:
    return Snapshots(root / region)


def archived(root: Path, region: str = "east") -> list[str]:
    archive = vault(root, region).archive()
    return [snapshot.snapshot_id for snapshot in archive.snapshots()] if archive is not None else []


def archive_of(root: Path) -> Archive:
    archive = vault(root).archive()
    assert archive is not None
    return archive


async def history(fleet: Fleet, job: str) -> list[dict[str, Any]]:
    return [e for e in (await fleet.http.get(f"/v1/events?job={job}")).json() if e["kind"] == "archive"]


async def cycle(fleet: Fleet, job: str) -> str:
    """Suspend; the snapshot."""
    await fleet.reaches(job, "running")
    await fleet.post(job, "suspend")
    await fleet.reaches(job, "suspended")
    ref = fleet.region.service.records[job].snapshot
    assert ref is not None
    return ref.snapshot_id


async def test_from_commit_to_the_end_of_the_job(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit()
        first = await cycle(fleet, job)
        await until(lambda: archived(tmp_path) == [first])
        await until(lambda: first in fleet.region.vaults.durable)
        assert vault(tmp_path).is_raw(first), "the job stands still"
        await fleet.post(job, "resume")
        await fleet.reaches(job, "running")
        await until(lambda: vault(tmp_path).ids() == [])
        taken = [first, *[await _again(fleet, job) for _ in range(2)]]
        await until(lambda: archived(tmp_path) == taken[1:])
        assert not vault(tmp_path).is_raw(taken[1])
        lines = await history(fleet, job)
        assert [line["message"].split()[0] for line in lines] == taken
        assert all(line["nbytes"] is not None and "were new" in line["message"] for line in lines)
        await fleet.post(job, "cancel")
        await fleet.reaches(job, "cancelled")
        await until(lambda: archived(tmp_path) == [] and vault(tmp_path).ids() == [])
        await until(lambda: not list(archive_of(tmp_path).backend.list("owners")))
        assert check(archive_of(tmp_path), deep=True) == []


async def test_a_job_keeps_as_many_as_its_user_says(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit(checkpoints={"keep": 3})
        taken = [await _again(fleet, job) for _ in range(5)]
        await until(lambda: archived(tmp_path) == taken[-3:])
        saves = (await fleet.job(job))["checkpoints"]
        assert saves["keep"] == 3 and saves["every_s"], "it is saved as the fleet's jobs are"
        response = await fleet.http.post("/v1/jobs", json={"command": ["true"], "checkpoints": {"keep": 1}})
        assert response.status_code == 422 and "keep is 1" in response.text


async def test_a_snapshot_that_goes_while_it_is_archived_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "midstep.control")
    go = tmp_path / "go"
    waits = f'while [ ! -e "{go}" ]; do sleep 0.02; done; exec "$@"'
    async with running(tmp_path, archiver=("/bin/sh", "-c", waits, "sh", *ARCHIVER)) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit()
        snapshot_id = await cycle(fleet, job)
        await fleet.post(job, "cancel")
        await fleet.reaches(job, "cancelled")
        await until(lambda: vault(tmp_path).ids() == [])
        go.touch()
        await until(lambda: f"{snapshot_id} was replaced" in caplog.text)
        other = await cycle(fleet, await fleet.submit())
        await until(lambda: archived(tmp_path) == [other])
        assert [it.message for it in caplog.records if it.levelno > logging.INFO] == []


async def test_a_region_whose_archive_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    hangs = 'case "$*" in */east*) exec sleep 1000;; esac; exec "$@"'
    async with running(tmp_path, archiver=("/bin/sh", "-c", hangs, "sh", *ARCHIVER)) as fleet:
        await fleet.add(node("e1"))
        await fleet.add(node("w1", region="west"))
        await cycle(fleet, await fleet.submit(region="east"))
        snapshot_id = await cycle(fleet, await fleet.submit(region="west"))
        await until(lambda: archived(tmp_path, "west") == [snapshot_id])
        assert archived(tmp_path) == []


async def _again(fleet: Fleet, job: str) -> str:
    snapshot_id = await cycle(fleet, job)
    await until(lambda: snapshot_id in fleet.region.vaults.durable)
    await fleet.post(job, "resume")
    await fleet.reaches(job, "running")
    return snapshot_id


async def test_what_a_controller_did_not_get_to_the_next_one_does(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:  # no archiver
        await fleet.add(node("e1"))
        job, gone = await fleet.submit(), await fleet.submit()
        snapshot_id, old = await cycle(fleet, job), await cycle(fleet, gone)
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await until(lambda: sorted(archived(tmp_path)) == sorted([snapshot_id, old]))
    async with running(tmp_path) as fleet:
        await fleet.post(gone, "cancel")
        await fleet.reaches(gone, "cancelled")
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await until(lambda: archived(tmp_path) == [snapshot_id])
        await until(lambda: snapshot_id in fleet.region.vaults.durable)
        await until(lambda: vault(tmp_path).ids() == [snapshot_id])


async def test_the_files_of_a_suspended_job_come_out_of_the_archive(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit()
        snapshot_id = await cycle(fleet, job)
        await until(lambda: archived(tmp_path) == [snapshot_id])
        vault(tmp_path).delete(snapshot_id)
        response = await fleet.http.get(f"/v1/jobs/{job}/files")
        assert response.status_code == 200 and b"out.txt" in response.content


async def test_a_controller_that_is_outranked_writes_nothing_more(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit()
        first = await cycle(fleet, job)
        await until(lambda: first in fleet.region.vaults.durable)
        archive = archive_of(tmp_path)
        fence.claim(archive.backend, job, "another controller", archive.ids)
        await fleet.post(job, "resume")
        second = await cycle(fleet, job)
        for _ in range(500):
            if any("not archived" in line["message"] for line in await history(fleet, job)):
                break
            await fleet.http.get("/v1/health?wait")
        last = (await history(fleet, job))[-1]["message"]
        assert second in last and "another controller" in last and "stop the older one" in last
        assert archived(tmp_path) == [first] and vault(tmp_path).is_raw(second)
        await fleet.post(job, "resume")  # the job itself goes on
        await fleet.reaches(job, "running")


@pytest.mark.parametrize("command", [("/not/there",), (sys.executable, "-c", "raise SystemExit(3)")])
async def test_without_a_working_archiver_nothing_is_lost(tmp_path: Path, command: tuple[str, ...]) -> None:
    async with running(tmp_path, archiver=command) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit()
        snapshot_id = await cycle(fleet, job)
        await fleet.post(job, "resume")
        await fleet.reaches(job, "running")
        assert vault(tmp_path).verify(snapshot_id)


async def test_what_a_fleet_that_is_no_more_has_archived_stays(tmp_path: Path) -> None:
    """The controller has lost its disk: jobs are begun from the archive, whose old snapshots are not the new
    one's to judge."""
    async with running(tmp_path, archiver=ARCHIVER) as lost:
        await lost.add(node("e1"))
        job = await lost.submit()
        first = await cycle(lost, job)
        await until(lambda: first in lost.region.vaults.durable)
    vault(tmp_path).delete(first)
    async with running(tmp_path, archiver=ARCHIVER, state="another") as fleet:
        await fleet.add(node("e1"))
        answer = await fleet.http.post("/v1/jobs", json={"from_snapshot": job})
        assert answer.status_code == 201, answer.text
        fork = answer.json()["job_id"]
        mine = [await cycle(fleet, fork)]
        await fleet.post(fork, "resume")
        mine.append(await cycle(fleet, fork))
        await until(lambda: archived(tmp_path) == sorted([first, *mine]))
        await fleet.post(fork, "cancel")
        await fleet.reaches(fork, "cancelled")
        await until(lambda: archived(tmp_path) == [first])
    assert check(archive_of(tmp_path), deep=True) == []
