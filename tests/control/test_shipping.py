"""What agents of other regions are given: a snapshot is archived first, out of turn, and what cannot be is
said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest

from midstep.control.vaults import shipping
from midstep.engine.events import SnapshotCopied
from midstep.model.phase import CopyState, CopyStatus
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.manifest import decode
from midstep.vault.archive.shipping import join_ids, pieces
from midstep.vault.snapshots import Snapshots
from tests.control.fake_agent import node
from tests.control.harness import Fleet, running

ARCHIVER = (sys.executable, "-m", "midstep.app.archiver")


async def manifest(fleet: Fleet, region: str, snapshot: str, patient: bool = False) -> httpx.Response:
    """Ask until it is archived."""
    url = f"/v1/internal/vault/{region}/{snapshot}?patient={patient}"
    while (response := await fleet.http.get(url, timeout=30)).status_code == 202:
        assert set(response.json()) == {"done_bytes", "total_bytes"}
    return response


async def cut(fleet: Fleet) -> tuple[str, str]:
    job = await fleet.submit(region="east")
    await fleet.reaches(job, "running")
    await fleet.post(job, "suspend")
    return job, (await fleet.reaches(job, "suspended"))["snapshot"]


async def test_a_raw_snapshot_is_archived_when_it_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        _, snapshot = await cut(fleet)
        response = await manifest(fleet, "east", snapshot)
        assert response.status_code == 200, response.text
        archived = decode(response.content, snapshot)
        ids = sorted(set(archived.ids()))
        sent = await fleet.http.post("/v1/internal/vault/east/chunks", content=join_ids(ids))
        assert len(list(pieces([sent.content]))) == len(ids) > 0
        assert (await fleet.http.post("/v1/internal/vault/east/chunks", content=b"xy")).status_code == 422
        assert (await fleet.http.post("/v1/internal/vault/mars/chunks", content=b"")).status_code == 404


_MODEST = """
renice -n 19 $$ > /dev/null
while [ $(cut -d ' ' -f 19 /proc/$$/stat) != 0 ]; do sleep 0.02; done
exec "$@"
"""


@pytest.mark.parametrize("patient", [False, True])
async def test_an_archiver_that_has_no_turn_is_given_one_when_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    """Jobs take all processors: an archiver of the lowest priority gets nowhere."""
    if os.geteuid() != 0:
        pytest.skip("raising a priority needs root")
    monkeypatch.setattr(shipping, "PATIENCE_S", 0.2)
    monkeypatch.setattr(shipping, "WAIT_S", 0.3)
    async with running(tmp_path, archiver=("/bin/sh", "-c", _MODEST, "sh", *ARCHIVER)) as fleet:
        await fleet.add(node("e1"))
        _, snapshot = await cut(fleet)
        response = await manifest(fleet, "east", snapshot, patient)
        assert response.status_code == 200, response.text


async def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    async with running(tmp_path, archiver=("/not/there",)) as fleet:
        await fleet.add(node("e1"))
        _, snapshot = await cut(fleet)
        answers = [await manifest(fleet, "east", snapshot) for _ in range(2)]
        assert any(a.status_code == 503 and a.json()["code"] == "not_archived" for a in answers), answers
        (Snapshots(tmp_path / "east").path(snapshot) / "home-0/work/out.txt").write_text("longer")
        response = await manifest(fleet, "east", snapshot)
        assert response.status_code == 422 and response.json()["code"] == "snapshot_damaged"
        assert (await manifest(fleet, "east", "j-none-1")).status_code == 404
        assert (await manifest(fleet, "mars", snapshot)).status_code == 404


async def test_a_snapshot_that_is_archived_while_somebody_looks_for_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        _, snapshot = await cut(fleet)
        await manifest(fleet, "east", snapshot)
        exists, looks = Archive.exists, iter((False,))

        def late(archive: Archive, name: str) -> bool:
            return next(looks, True) and exists(archive, name)

        monkeypatch.setattr(Archive, "exists", late)
        Snapshots(tmp_path / "east").delete(snapshot)
        response = await fleet.http.get(f"/v1/internal/vault/east/{snapshot}")
        assert response.status_code == 200 and decode(response.content, snapshot).snapshot_id == snapshot


async def test_a_job_is_copied_ahead_by_a_node_of_the_other_region(tmp_path: Path) -> None:
    """The node there is told what to bring; when it has it, the job is cut."""
    async with running(tmp_path, archiver=ARCHIVER) as fleet:
        await fleet.add(node("e1"))
        await fleet.add(node("w1", region="west"))
        job = await fleet.submit(region="east")
        await fleet.reaches(job, "running")
        service = fleet.region.service
        await fleet.post(job, "migrate", to="west")
        while (plan := service.records[job].ahead) is None or plan.copying is None:
            await fleet.reaches(job, "running")
            record = service.records[job]
            if record.stage == "over":
                raise AssertionError(record.story)
        assert "copied to west while it runs" in (await fleet.job(job))["reason"]
        done = CopyStatus(job, plan.copying.snapshot_id, CopyState.DONE, 1000, 0, 5, 1.0)
        await service.ask(job, SnapshotCopied("w1", done))
        view = await fleet.reaches(job, "running")
        while view["region"] != "west":
            view = await fleet.job(job)
        assert [m["kind"] for m in view["moves"]].count("copy-ahead") == 1
