"""A job outlives its raw snapshot: what it goes on from comes out of the archive, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.substrate.local.processes import wait_for
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import check, damaged_snapshots
from midstep.vault.snapshots import Snapshots
from tests.fleet.harness import Fleet, MakeFleet
from tests.fleet.test_bit_exact import CASES, EXAMPLES, calm, results
from tests.fleet.test_survival import COUNT, counted

TIMEOUT_S = 90.0


def vault_of(fleet: Fleet, region: str) -> Snapshots:
    return Snapshots(fleet.paths.vault(region))


def until_archived(fleet: Fleet, region: str, job: str) -> list[str]:
    """The job's archived snapshots, when its newest one is among them."""
    vault = vault_of(fleet, region)
    with fleet.client() as client:
        assert wait_for(
            lambda: "archive" in {event.kind for event in client.events(job, limit=1000)}, TIMEOUT_S
        ), client.events(job, limit=1000)
    archive = vault.archive()
    assert archive is not None
    return [snapshot.snapshot_id for snapshot in archive.snapshots(job)]


@pytest.mark.timeout(400)
def test_resumes_from_the_archive_alone(fleet: Fleet) -> None:
    case = CASES[1]  # two ranks
    job = fleet.run(*case.launched(("torchrun",)), files=EXAMPLES, region="north")
    fleet.until_logs(job, "step ")
    fleet.suspend(job)
    (snapshot_id,) = until_archived(fleet, "north", job.job_id)
    vault = vault_of(fleet, "north")
    assert vault.is_raw(snapshot_id), "it stays while the job stands still"
    vault.delete(snapshot_id)
    fleet.resume(job)
    fleet.wait(job, "completed", timeout_s=240)
    assert results(fleet.logs(job)) == calm(fleet, case)
    archive = vault.archive()
    assert archive is not None
    # The job is over, so a collector may be removing its packs just now.
    assert wait_for(lambda: not check(archive, deep=True), 60, every_s=1.0)


@pytest.mark.timeout(300)
def test_raw_goes_when_the_job_runs_and_all_goes_when_it_is_over(fleet: Fleet) -> None:
    job = fleet.run("python", "-c", "import time\nprint('up', flush=True)\ntime.sleep(1000)", region="north")
    fleet.until_logs(job, "up")
    fleet.suspend(job)
    (snapshot_id,) = until_archived(fleet, "north", job.job_id)
    fleet.resume(job)
    vault = vault_of(fleet, "north")
    assert wait_for(lambda: snapshot_id not in vault.ids(), TIMEOUT_S)
    fleet.migrate(job, "south")
    fleet.cancel(job)
    for region in ("north", "south"):
        there = vault_of(fleet, region)
        assert wait_for(lambda it=there: not _left(it, job.job_id), TIMEOUT_S), region


@pytest.mark.timeout(300)
def test_a_damaged_snapshot_is_not_used_and_what_is_damaged_is_stored_anew(fleet: Fleet) -> None:
    job = fleet.run("python", "-c", COUNT, region="north").job_id
    vault = vault_of(fleet, "north")
    fleet.until_logs(job, "3\n")
    fleet.suspend(job)
    until_archived(fleet, "north", job)
    fleet.resume(job)
    fleet.until_logs(job, f"{counted(fleet, job) + 3}\n")
    fleet.suspend(job)
    assert wait_for(lambda: len(until_archived(fleet, "north", job)) > 1, TIMEOUT_S)
    taken, at_cut = until_archived(fleet, "north", job), counted(fleet, job)
    archive = vault.archive()
    assert archive is not None
    hurt = _damage_what_only_the_last_needs(archive, fleet.paths.vault("north") / "archive", taken)
    assert hurt == taken[-1:]
    for snapshot_id in taken:
        vault.delete(snapshot_id)
    fleet.resume(job)
    assert counted(fleet, job) < at_cut, "it is at the cut before"
    fleet.until_logs(job, f"{at_cut + 3}\n")
    counted(fleet, job)
    fleet.suspend(job)
    assert wait_for(lambda: bool(set(until_archived(fleet, "north", job)) - set(taken)), TIMEOUT_S)
    assert damaged_snapshots(check(vault_of(fleet, "north").archive() or archive, deep=True)) in ([], hurt)
    fleet.cancel(job)


def _damage_what_only_the_last_needs(archive: Archive, folder: Path, taken: list[str]) -> list[str]:
    """Flip a bit in a chunk that no other snapshot holds; those that it hurts."""
    last = set(archive.load(taken[-1]).ids())
    others = {
        chunk for name in archive.snapshot_ids() if name != taken[-1] for chunk in archive.load(name).ids()
    }
    archive.repository.refresh()
    stored = archive.repository.find(min(last - others))
    assert stored is not None
    data = bytearray((folder / stored.pack).read_bytes())
    data[stored.offset + stored.stored // 2] ^= 1
    (folder / stored.pack).write_bytes(data)
    return damaged_snapshots(check(archive, deep=True))


def _left(vault: Snapshots, job_id: str) -> list[str]:
    archive = vault.archive()
    archived = archive.snapshot_ids(job_id) if archive is not None else []
    return [*archived, *(name for name in vault.ids() if name.startswith(f"{job_id}-"))]


@pytest.mark.timeout(300)
def test_a_job_moves_between_regions_out_of_the_archive(fleet: Fleet) -> None:
    job = fleet.run("python", "-c", COUNT, region="north").job_id
    fleet.until_logs(job, "3\n")
    fleet.suspend(job)
    (snapshot_id,) = until_archived(fleet, "north", job)
    vault_of(fleet, "north").delete(snapshot_id)
    before = len(fleet.logs(job).splitlines())
    fleet.migrate(job, "south")
    fleet.until_logs(job, f"{before + 3}\n")
    counted(fleet, job)
    fleet.cancel(job)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_snapshot_is_enough_where_nobody_knows_the_job(fleet: Fleet, own_fleet: MakeFleet) -> None:
    """A fleet is lost with its controller; a copy of the snapshot is in another one's archive."""
    case = CASES[1]  # two ranks
    lost = own_fleet("--regions", "1", "--nodes", "2", "--devices", "1")
    job = lost.run(*case.launched(("torchrun",)), files=EXAMPLES)
    lost.until_logs(job, "step ")
    snapshot_id = lost.suspend(job).snapshot
    assert until_archived(lost, "north", job.job_id) == [snapshot_id]
    copied = lost.cli("vault", "cp", snapshot_id, str(fleet.paths.vault("south") / "archive"))
    assert copied.returncode == 0, copied.stderr
    lost.down("--now")
    begun = fleet.cli("run", "--from", snapshot_id, "--name", "saved")
    assert begun.returncode == 0, begun.stderr
    fleet.wait("saved", "completed", timeout_s=240)
    assert results(fleet.logs("saved")) == calm(fleet, case)
