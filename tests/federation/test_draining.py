"""A node is emptied, and its region has no room: jobs go on in other regions, under other controllers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from midstep.control.scheduling import draining
from midstep.policy.levels.sending import Waiter, send
from midstep.policy.levels.summary import Need, Summary
from tests.control.fake_agent import node
from tests.control.harness import until
from tests.federation.harness import Federation, federation


async def drained(fed: Federation, name: str) -> dict[str, Any]:
    """How far it is."""
    response = await fed.http.get(f"/v1/nodes/{name}/drain")
    assert response.status_code == 200, response.text
    return response.json()


async def drain(fed: Federation, name: str, **body: Any) -> None:
    response = await fed.http.post(f"/v1/nodes/{name}/drain", json=body)
    assert response.status_code == 202, response.text


def told(fed: Federation, job: str, kind: str) -> str:
    """What the controller that the job came from says happened."""
    history = fed.regions["east"].region.journal.events(job, 0.0, 1000, by="at_s")
    return " ".join(event.message for event in history if event.kind == kind)


async def until_empty(fed: Federation, name: str) -> None:
    async def look() -> None:
        while not (await drained(fed, name))["done"]:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(look(), 20)


async def test_what_has_no_room_in_its_region_goes_to_another_one_whole(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        job = await fed.submit(devices=2, min_devices=1)
        await fed.reaches(job, "running", region="east")
        await fed.add(node("e2", "east", 1))  # here it would have to shrink
        await fed.add(node("w1", "west"))
        await drain(fed, "e1")
        view = await fed.reaches(job, "running", region="west")
        assert [rank["node"] for rank in view["ranks"]] == ["w1", "w1"]
        assert fed.owners(job) == ["west"]
        assert "copy-ahead" in {move["kind"] for move in view["moves"]}, "it ran on while it was copied"
        await until_empty(fed, "e1")
        assert fed.regions["east"].region.planner.offered == {}
        said = "e1 is being drained; 2 devices are free in west"
        await until(lambda: said in told(fed, job, "scheduled"))


async def test_its_own_region_comes_first_and_so_does_its_users_word(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        await fed.add(node("e2", "east"))
        await fed.add(node("w1", "west"))
        here = await fed.submit(devices=2, region="east", min_devices=2)
        await fed.reaches(here, "running", region="east")
        there = await fed.submit(devices=2, min_devices=2)
        await fed.reaches(there, "running")
        if fed.owners(there) == ["west"]:
            await fed.post(there, "migrate", to="east", copy_ahead=False)
            await fed.reaches(there, "running", region="east")
        at = {job: (await fed.job(job))["ranks"][0]["node"] for job in (here, there)}
        await drain(fed, at[there])
        await fed.reaches(there, "running", region="west")
        await until_empty(fed, at[there])
        await fed.http.post(f"/v1/nodes/{at[there]}/uncordon")
        await drain(fed, at[here])
        await until_empty(fed, at[here])
        assert fed.owners(here) == ["east"]
        await fed.http.post(f"/v1/nodes/{at[here]}/uncordon")
        await fed.post(there, "cancel")
        other = await fed.submit(devices=2, region="east", tier="premium")
        await fed.reaches(other, "running", region="east")
        await drain(fed, at[there])  # the other one is in use, and it was submitted to be in this region
        await asyncio.sleep(2)
        assert fed.owners(here) == ["east"]
        assert [left["state"] for left in (await drained(fed, at[there]))["left"]] == ["waiting"]


async def test_nobody_has_room_so_it_makes_do_with_less_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "OFFER_S", 1.0)
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        job = await fed.submit(devices=2, min_devices=1)
        await fed.reaches(job, "running", region="east")
        await fed.add(node("e2", "east", 1))
        await fed.add(node("w1", "west", 1))
        await drain(fed, "e1")
        left = (await drained(fed, "e1"))["left"]
        assert [(one["state"], one["reason"]) for one in left] == [
            ("waiting", "e1 is being drained: it is offered to other regions")
        ]
        await until_empty(fed, "e1")
        view = await fed.reaches(job, "running", region="east")
        assert {rank["node"] for rank in view["ranks"]} == {"e2"}


async def test_a_deadline_does_not_wait_for_what_is_copied_ahead(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        job = await fed.submit(devices=2, min_devices=2)
        await fed.reaches(job, "running", region="east")
        west = await fed.add(node("w1", "west"))
        west.brings = False  # nothing that is to be copied ahead ever comes
        await drain(fed, "e1", deadline_s=1.5)
        records = fed.regions["east"].region.service.records
        await until(lambda: records[job].parting is not None)
        left = (await drained(fed, "e1"))["left"]
        assert [(one["state"], one["to"]) for one in left] == [("moving", "west")]
        await until_empty(fed, "e1")
        await until(lambda: fed.owners(job) == ["west"])
        await until(lambda: "the deadline is over" in told(fed, job, "copy-ahead"))


def test_only_free_devices_for_all_of_it_make_a_running_job_leave() -> None:
    def west(free: int, waiting: float = 0.0) -> dict[str, list[Summary]]:
        return {"west": [Summary("west", "main", "cpu", 4, free, 4, 4.0, 4.0, waiting)]}

    need = Need(2, (), "", "east", 1 << 40)
    runs = Waiter("job", "east", need, 2, 0.0, drained="e1")
    assert [str(one) for one in send([runs], west(2), 1e9, 5.0)] == [
        "e1 is being drained; 2 devices are free in west, 1100 s of transfer"
    ]
    assert send([runs], west(1), 1e9, 5.0) == []
    assert send([runs], west(2, waiting=1.0), 1e9, 5.0) == []
    assert send([runs], west(2), 1e9, 5.0, {("job", "west")}) == []
