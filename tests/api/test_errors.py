"""What the interface answers to requests that make no sense: which field, what was expected, what to do."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.fake_agent import node
from tests.control.harness import Fleet, running, until


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running(tmp_path) as fleet:
        await fleet.add(node("n1"))
        await fleet.add(node("n2", devices=1))
        yield fleet


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("train.py"))
    return packed.getvalue()


SUBMISSIONS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid", "command is not valid"),
    ({"command": []}, "invalid", "command is not valid"),
    ({"command": ["  "]}, "invalid", "command is not valid"),
    ({"command": "python x.py"}, "invalid", "command is not valid"),
    ({"command": ["a\0b"]}, "invalid", "command is not valid"),
    ({"command": ["x"], "devices": 0}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": -1}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": 10**9}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": "many"}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": 1.5}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": 0.001}, "invalid", "devices is not valid"),
    ({"command": ["x"], "devices": 0.5, "ranks": 2}, "invalid", "devices is not valid"),
    (
        {"command": ["torchrun", "--nproc-per-node=2", "t.py"], "devices": 0.5},
        "invalid",
        "devices is not valid",
    ),
    ({"command": ["x"], "devices": 0.5, "min_devices": 2}, "invalid", "min_devices is not valid"),
    ({"command": ["x"], "ranks": 10**9}, "invalid", "ranks is not valid"),
    ({"command": ["x"], "ranks": 0}, "invalid", "ranks is not valid"),
    ({"command": ["x"], "threads": 0}, "invalid", "threads is not valid"),
    ({"command": ["x"], "uid": -5}, "invalid", "uid is not valid"),
    ({"command": ["x"], "tier": "gold"}, "invalid", "tier is not valid"),
    ({"command": ["x"], "gpus": 1}, "invalid", "gpus is not valid"),
    ({"command": ["x"], "env": {"A=B": "c"}}, "invalid", "env is not valid"),
    ({"command": ["x"], "name": "a/b"}, "invalid", "name is not valid"),
    ({"command": ["x"], "devices": 3, "ranks": 2}, "invalid", "devices is not valid"),
    (
        {"command": ["x"], "devices": 4},
        "too_large",
        "the job asks for 4 devices; there are 3 of one type in one region",
    ),
    (
        {"command": ["x"], "devices": 3, "node": "n1"},
        "too_large",
        "the job asks for 3 devices; there are 2 at n1",
    ),
    (
        {"command": ["x"], "device_type": "h100"},
        "no_such_device_type",
        "the job asks for devices of type 'h100'; there are cpu-1c",
    ),
    ({"command": ["x"], "node": "n9"}, "no_such_place", "the job asks for 'n9'; there are n1, n2"),
    ({"command": ["x"], "region": "north"}, "no_such_place", "the job asks for 'north'; there are east"),
    (
        {"command": ["torchrun", "--nproc-per-node", "zero", "x.py"]},
        "bad_launcher",
        "the launcher's command cannot be unwrapped",
    ),
]


async def test_submissions_that_make_no_sense(fleet: Fleet) -> None:
    for body, code, title in SUBMISSIONS:
        response = await fleet.http.post("/v1/jobs", json=body)
        problem = response.json()
        assert response.status_code == 422, f"{body}: {problem}"
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["title"]) == (code, title), f"{body}: {problem}"
        assert problem["detail"] or problem["hint"], body
    assert (await fleet.http.get("/v1/jobs")).json() == []


async def test_bodies_that_are_no_requests(fleet: Fleet) -> None:
    response = await fleet.http.post("/v1/jobs", content=b"{oops")
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    response = await fleet.http.post("/v1/jobs", json=[1])
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    response = await fleet.http.post("/v1/jobs", content=b"[" * 100_000)
    assert response.status_code in (400, 422)


async def test_a_missing_upload_and_a_broken_one(fleet: Fleet) -> None:
    response = await fleet.http.post("/v1/jobs", json={"command": ["x"], "workdir_blob": "0" * 64})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    for body in (b"no archive", gzip.compress(b"no tar"), b""):
        response = await fleet.http.post("/v1/blobs", content=body)
        assert (response.status_code, response.json()["code"]) == (422, "bad_blob"), body
    assert list((fleet.root / "state" / "blobs").iterdir()) == []


async def test_an_upload_is_named_by_its_content_and_comes_back(fleet: Fleet) -> None:
    body = archive()
    first = (await fleet.http.post("/v1/blobs", content=body)).json()["blob"]
    assert (await fleet.http.post("/v1/blobs", content=body)).json()["blob"] == first
    assert (await fleet.http.get(f"/v1/internal/blobs/{first}")).content == body
    job = await fleet.submit("python", "train.py", workdir_blob=first)
    assert fleet.region.service.records[job].spec.workdir_blob == first
    assert (await fleet.http.get("/v1/internal/blobs/..%2f..%2fmidstep.db")).status_code == 404


async def test_without_the_token_nothing_is_told(fleet: Fleet) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        for path in ("/v1/health", "/v1/jobs", "/v1/openapi.json", "/v1/internal/vault/east/x", "/nothing"):
            response = await fleet.http.get(path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "not_allowed")


async def test_jobs_are_found_by_id_prefix_and_name(fleet: Fleet) -> None:
    first = await fleet.submit(name="same")
    second = await fleet.submit(name="same")
    assert (await fleet.job("same"))["job_id"] == second
    assert (await fleet.job(first))["job_id"] == first
    assert (await fleet.job(first[:-1]))["job_id"] == first
    response = await fleet.http.get("/v1/jobs/j-")
    assert (response.status_code, response.json()["code"]) == (409, "ambiguous_job")
    assert first in response.json()["detail"]
    response = await fleet.http.get("/v1/jobs/nothing")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_job")


async def test_what_a_job_s_state_does_not_allow(fleet: Fleet) -> None:
    job = await fleet.submit()
    await fleet.reaches(job, "running")
    problem = await fleet.post(job, "resume", 409)
    assert (problem["code"], problem["detail"]) == ("not_suspended", "its state is running")
    problem = await fleet.post(job, "migrate", 422, to="mars")
    assert problem["code"] == "no_such_place" and "n1" in problem["detail"]
    assert (await fleet.post(job, "migrate", 409, to="east"))["code"] == "already_there"
    assert (await fleet.post(job, "migrate", 422, where="n2"))["code"] == "invalid"
    large = await fleet.submit(devices=2)
    problem = await fleet.post(large, "migrate", 422, to="n2")
    assert (problem["code"], problem["title"]) == (
        "too_large",
        "the job asks for 2 devices; there are 1 at n2",
    )
    response = await fleet.http.get(f"/v1/jobs/{job}/files")
    assert (response.status_code, response.json()["code"]) == (409, "no_files")
    await fleet.post(job, "cancel")
    await fleet.reaches(job, "cancelled")
    for verb in ("suspend", "resume", "cancel"):
        problem = await fleet.post(job, verb, 409)
        assert (problem["code"], problem["detail"]) == ("job_ended", "its state is cancelled")


async def test_queries_that_make_no_sense(fleet: Fleet) -> None:
    job = await fleet.submit()
    for path in (
        "/v1/jobs?state=flying",
        f"/v1/jobs/{job}/logs?rank=7",
        f"/v1/jobs/{job}/logs?rank=x",
        f"/v1/jobs/{job}/logs?offset=-1",
        f"/v1/jobs/{job}/logs?limit=0",
        "/v1/events?after=-1",
        "/v1/events?limit=1000000000",
        "/v1/events?wait_s=inf",
    ):
        response = await fleet.http.get(path)
        assert (response.status_code, response.json()["code"]) == (422, "invalid"), path
    for method, path, status in (("GET", "/v1/nothing", 404), ("DELETE", "/v1/jobs", 405)):
        response = await fleet.http.request(method, path)
        assert response.status_code == status and response.json()["status"] == status


async def test_launchers_are_unwrapped(fleet: Fleet) -> None:
    view = await fleet.job(await fleet.submit("torchrun", "--nproc-per-node=2", "train.py", "--lr", "1"))
    assert (view["world_size"], view["devices"]) == (2, 2)
    assert view["command"] == ["python3", "-u", "train.py", "--lr", "1"]
    view = await fleet.job(await fleet.submit("torchrun", "--nproc-per-node=4", "t.py", devices=2))
    assert (view["world_size"], view["devices"]) == (4, 2)


async def test_files_of_a_suspended_job(fleet: Fleet) -> None:
    job = await fleet.submit()
    await fleet.reaches(job, "running")
    await fleet.post(job, "suspend")
    await fleet.reaches(job, "suspended")
    response = await fleet.http.get(f"/v1/jobs/{job}/files")
    with tarfile.open(fileobj=io.BytesIO(response.content)) as tar:
        assert tar.getnames() == ["out.txt"]
    record = fleet.region.service.records[job]
    assert record.snapshot is not None
    response = await fleet.http.get(f"/v1/internal/vault/east/{record.snapshot.snapshot_id}")
    assert response.status_code == 503 and "no archiver" in response.json()["hint"]
    assert (await fleet.http.get("/v1/internal/vault/east/s-none")).status_code == 404


async def test_events_are_waited_for(fleet: Fleet) -> None:
    job = await fleet.submit()
    await fleet.reaches(job, "running")
    rows = (await fleet.http.get(f"/v1/events?job={job}")).json()
    kinds = [row["kind"] for row in rows]
    assert kinds[0] == "submitted" and {"placed", "state", "step"} <= set(kinds)
    assert [row["message"] for row in rows if row["kind"] == "state"] == [
        "queued -> starting",
        "starting -> running",
    ]
    assert all(row["duration_s"] is not None for row in rows if row["kind"] == "step")
    last = rows[-1]["number"]
    assert (await fleet.http.get(f"/v1/events?job={job}&after={last}&wait_s=0.05")).json() == []
    await fleet.post(job, "cancel")
    news = (await fleet.http.get(f"/v1/events?job={job}&after={last}&wait_s=20")).json()
    assert news[0]["message"] == "cancel"


async def test_a_full_disk_is_said_and_changes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from midstep.control.errors import StateError
    from midstep.control.journal import Journal

    job = await fleet.submit()
    await fleet.reaches(job, "running")

    def full(*_: object, **__: object) -> None:
        raise StateError("the controller's database cannot be used: database or disk is full")

    monkeypatch.setattr(Journal, "commit", full)
    problem = await fleet.post(job, "suspend", 503)
    assert problem["code"] == "state_unavailable" and "full" in problem["title"]
    monkeypatch.undo()
    assert (await fleet.job(job))["state"] == "running"
    await fleet.post(job, "suspend")
    await fleet.reaches(job, "suspended")


async def test_text_of_logs_is_never_cut_inside_a_character(fleet: Fleet) -> None:
    job = await fleet.submit()
    view = await fleet.reaches(job, "running")
    agent = fleet.agents[view["ranks"][0]["node"]]
    await agent.write_log(job, 0, 0, "grün".encode())
    await until(lambda: fleet.region.logs.size(job, 0) == 5)
    first = (await fleet.http.get(f"/v1/jobs/{job}/logs?limit=3")).json()
    assert (first["text"], first["next_offset"], first["ended"]) == ("gr", 2, False)
    rest = (await fleet.http.get(f"/v1/jobs/{job}/logs?offset=2")).json()
    assert (rest["text"], rest["next_offset"]) == ("ün", 5)
