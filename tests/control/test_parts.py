"""Jobs that take a part of a device, in the service: over real connections with fake agents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midstep.control.errors import Rejected
from midstep.control.scheduling.fractions import rates_of
from midstep.control.sizes import sized
from midstep.engine.check import check
from tests.control.fake_agent import node
from tests.control.harness import Fleet, running, until


def device_of(fleet: Fleet, job: str) -> tuple[str, int]:
    place = fleet.region.service.records[job].nodes[0]
    return place.node, place.ranks[0].devices[0]


async def halves(fleet: Fleet, count: int, **fields: Any) -> list[str]:
    jobs = [await fleet.submit(name=f"h{i}", devices=0.5, **fields) for i in range(count)]
    for job in jobs:
        await fleet.reaches(job, "running")
    return jobs


async def devices(fleet: Fleet) -> dict[tuple[str, int], dict[str, float]]:
    found = (await fleet.http.get("/v1/nodes")).json()
    return {(n["name"], d["index"]): d["parts"] for n in found for d in n["devices"] if d["jobs"]}


def agree(fleet: Fleet) -> None:
    """The books of records and scheduler."""
    check(fleet.region.service.records.values())
    fleet.region.planner.pilot.scheduler.check()


async def test_two_halves_share_a_device(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        first, second = await halves(fleet, 2, project="team")
        assert device_of(fleet, first) == device_of(fleet, second)
        assert await devices(fleet) == {device_of(fleet, first): {first: 0.5, second: 0.5}}
        view = await fleet.job(first)
        assert (view["devices"], view["devices_now"], view["min_devices"]) == (0.5, 0.5, 0.5)
        whole = await fleet.submit(name="whole")
        await fleet.reaches(whole, "running")
        third = await fleet.submit(name="third", devices=0.25, tier="basic")
        await until(lambda: bool(fleet.region.service.records[third].waiting))
        (queued,) = (await fleet.http.get("/v1/queue")).json()
        assert (queued["job_id"], queued["devices"]) == (third, 0.25)
        (quota,) = (await fleet.http.get("/v1/quotas")).json()
        assert (quota["project"], quota["used"]) == ("team", 1.0)
        assert rates_of(fleet.region.service.records[first]).received == 0.5
        agree(fleet)

        await fleet.post(first, "suspend")
        await fleet.reaches(first, "suspended")
        await fleet.reaches(third, "running")
        assert device_of(fleet, third) == device_of(fleet, second)
        await fleet.post(first, "resume")  # it was promised half a device, the third one nothing
        await fleet.reaches(first, "running")
        await fleet.reaches(third, "queued")
        assert device_of(fleet, first) == device_of(fleet, second)
        agree(fleet)


async def test_they_move_together_for_a_whole_device(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        jobs = await halves(fleet, 4)
        assert device_of(fleet, jobs[0]) == device_of(fleet, jobs[1]) != device_of(fleet, jobs[2])
        for job in (jobs[0], jobs[2]):
            await fleet.post(job, "cancel")
            await fleet.reaches(job, "cancelled")
        whole = await fleet.submit(name="whole")
        await fleet.reaches(whole, "running")
        await fleet.reaches(jobs[1], "running")
        assert device_of(fleet, jobs[1]) == device_of(fleet, jobs[3]) != device_of(fleet, whole)
        agree(fleet)


async def test_they_move_and_are_drained(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        for name, region in (("e1", "east"), ("e2", "east"), ("w1", "west")):
            await fleet.add(node(name, region, devices=1))
        first, second = await halves(fleet, 2, region="east")
        here = device_of(fleet, first)[0]
        other = "e2" if here == "e1" else "e1"
        await fleet.post(first, "migrate", to=other)
        await until(lambda: device_of(fleet, first)[0] == other)
        await until(lambda: fleet.region.service.records[first].settled)
        agree(fleet)
        assert (await fleet.http.post(f"/v1/nodes/{other}/drain", json={})).status_code == 202
        await until(lambda: device_of(fleet, first) == device_of(fleet, second) == (here, 0))
        await until(lambda: fleet.region.service.records[first].settled)
        agree(fleet)


async def test_a_restarted_controller_knows_who_shares_with_whom(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        agent = await fleet.add(node("e1", devices=3))
        jobs = await halves(fleet, 3)
        await agent.stop()
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1", devices=3))
        for job in jobs:
            await fleet.reaches(job, "running")
        fourth = await fleet.submit(devices=0.5)
        await fleet.reaches(fourth, "running")
        assert len({device_of(fleet, job) for job in (*jobs, fourth)}) == 2
        whole = await fleet.submit()
        await fleet.reaches(whole, "running")
        agree(fleet)


async def test_what_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("gpus", device_type="nvidia-h200"))
        body: dict[str, Any] = {"command": ["x"], "devices": 0.5}
        refused = await fleet.http.post("/v1/jobs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "no_parts")
        await fleet.add(node("e1"))
        job = await fleet.submit(devices=0.5)
        await fleet.reaches(job, "running")
        assert fleet.region.service.records[job].spec.device_type == "cpu-1c", "not on GPUs that come later"
        named = await fleet.http.post("/v1/jobs", json={**body, "device_type": "nvidia-h200"})
        assert (named.status_code, named.json()["code"]) == (422, "no_parts")
        resized = await fleet.http.post(f"/v1/jobs/{job}/resize", json={"devices": 1})
        assert resized.status_code == 422 and "has 0.5 of a device, and keeps to that" in resized.text
        await fleet.add(replace(node("e2"), devices=node("e2", device_type="cpu-4c").devices))
        either = await fleet.http.post("/v1/jobs", json=body)
        assert either.status_code == 422 and "--device-type" in either.json()["hint"]


@pytest.mark.parametrize("devices", [0, -0.5, 1.5, 0.005, float("nan"), float("inf")])
def test_what_is_no_number_of_devices(devices: float) -> None:
    with pytest.raises(Rejected):
        sized(devices)


def test_numbers_of_devices() -> None:
    assert [sized(n) for n in (None, 2, 3.0, 0.5, 1 / 3)] == [
        (None, 1000),
        (2, 1000),
        (3, 1000),
        (1, 500),
        (1, 333),
    ]


async def test_a_fork_has_the_part_too_unless_it_is_given_another(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        (job,) = await halves(fleet, 1)
        await fleet.post(job, "suspend")
        await fleet.reaches(job, "suspended")
        for words, has in (({}, 0.5), ({"devices": 1}, 1), ({"devices": 0.25}, 0.25)):
            body = {"from_snapshot": job, **words}
            answer = await fleet.http.post("/v1/jobs", json=body)
            assert answer.status_code == 201, answer.text
            assert answer.json()["devices"] == has
        agree(fleet)
