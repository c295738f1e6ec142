"""Regions with a controller each and a global one above: jobs go where there is room, are handed over
whole, and belong to one controller at a time, whatever is lost on the way. Fake agents; tests/fleet has real
ones."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from midstep.control.errors import Rejected
from midstep.federation.members import Member
from tests.control.fake_agent import node
from tests.control.harness import until
from tests.federation.harness import Federation, federation

MOVES = {
    "queued": [],
    "running": ["hand-over", "migrate"],
    "suspended": ["suspend", "migrate"],
}


async def both(fed: Federation, devices: int = 2) -> None:
    await fed.add(node("e1", "east", devices))
    await fed.add(node("w1", "west", devices))


async def test_the_whole_fleet_is_seen_and_asked_through_one_door(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        health = (await fed.http.get("/v1/health")).json()
        assert (health["regions"], health["nodes_connected"], health["cut_off"]) == (["east", "west"], 2, [])
        assert [n["name"] for n in (await fed.http.get("/v1/nodes")).json()] == ["e1", "w1"]
        first = await fed.submit(devices=2, name="a", region="west")
        second = await fed.submit(devices=2, name="b")
        assert (await fed.reaches("a", "running"))["region"] == "west"
        assert (await fed.reaches("b", "running"))["region"] == "east"
        assert [j["job_id"] for j in (await fed.http.get("/v1/jobs")).json()] == [first, second]
        assert (await fed.job(second[2:6]))["name"] == "b"
        assert fed.owners(first) == ["west"]
        await fed.post("a", "suspend")
        await fed.reaches("a", "suspended")
        running = (await fed.http.get("/v1/jobs", params={"state": "running"})).json()
        assert [j["name"] for j in running] == ["b"]
        assert (await fed.http.get("/v1/jobs/a/why")).json()["state"] == "suspended"
        assert (await fed.http.post("/v1/nodes/w1/cordon")).json()["cordoned"]
        assert (await fed.http.get("/v1/nodes/w1/drain")).status_code == 409
        files = await fed.http.get("/v1/jobs/a/files")
        assert files.status_code == 200 and b"out.txt" in files.content


async def test_bad_requests_are_answered_as_one_controller_does(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=1, name="a")
        await fed.reaches(job, "running")

        async def code(method: str, path: str, **body: Any) -> tuple[int, str]:
            response = await fed.http.request(method, path, json=body or None)
            return response.status_code, response.json()["code"]

        assert await code("GET", "/v1/jobs/nobody") == (404, "no_such_job")
        assert await code("POST", "/v1/jobs/nobody/suspend") == (404, "no_such_job")
        assert await code("POST", "/v1/jobs", command=["x"], devices=9) == (422, "too_large")
        assert await code("POST", "/v1/jobs", command=["x"], region="mars") == (422, "no_such_place")
        assert await code("POST", "/v1/jobs", comand=["x"]) == (422, "invalid")
        assert await code("POST", "/v1/jobs/a/migrate", to="mars") == (422, "no_such_place")
        assert await code("POST", "/v1/nodes/mars/cordon") == (404, "no_such_node")
        assert await code("GET", "/v1/jobs?state=asleep") == (422, "invalid")
        fed.http.headers["Authorization"] = "Bearer wrong"
        assert await code("GET", "/v1/jobs") == (401, "not_allowed")


async def test_a_guarantee_stands_where_there_is_room_for_it(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        tiers = [await fed.job(await fed.submit(devices=2, tier="premium")) for _ in range(2)]
        assert [view["tier"] for view in tiers] == ["premium", "premium"]
        assert sorted(fed.owners(view["job_id"])[0] for view in tiers) == ["east", "west"]
        refused = await fed.http.post("/v1/jobs", json={"command": ["x"], "devices": 2, "tier": "premium"})
        assert (refused.status_code, refused.json()["code"]) == (409, "no_guarantee")


@pytest.mark.parametrize("state", ["running", "suspended", "queued"])
async def test_a_job_is_handed_over_whole(tmp_path: Path, state: str) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        if state == "queued":
            other = await fed.submit(devices=2, region="east", tier="premium")
            await fed.reaches(other, "running")
        job = await fed.submit(devices=2, region="east", env={"A": "b"}, tier="basic", retries=3)
        await fed.reaches(job, "queued" if state == "queued" else "running")
        if state == "suspended":
            await fed.post(job, "suspend")
            await fed.reaches(job, "suspended")
        before = fed.regions["east"].region.service.records[job]
        await fed.post(job, "migrate", to="west", copy_ahead=False)
        view = await fed.reaches(job, "running", region="west")
        after = fed.regions["west"].region.service.records[job]
        assert (after.hops, fed.owners(job)) == (1, ["west"])
        assert (after.spec.env, after.spec.retries, after.spec.tier) == (before.spec.env, 3, before.spec.tier)
        assert after.epoch > before.epoch and after.submitted_s == before.submitted_s
        assert [r["node"] for r in view["ranks"]] == ["w1", "w1"]
        kinds = [move["kind"] for move in view["moves"] if move["ok"]]
        assert kinds == MOVES[state]
        history = (await fed.http.get("/v1/events", params={"job": job, "limit": 1000, "wait_s": 2})).json()
        await asyncio.sleep(0.5)
        history = (await fed.http.get("/v1/events", params={"job": job, "limit": 1000})).json()
        kinds = [event["kind"] for event in history]
        assert kinds.index("submitted") < kinds.index("handed-over") < kinds.index("arrived")
        again = await fed.http.get("/v1/events", params={"job": job, "after": history[-1]["number"]})
        assert again.json() == []
        await fed.post(job, "checkpoint", 202)
        west = fed.regions["west"].region.service.records
        await until(lambda: west[job].older is not None or state == "queued")
        await fed.post(job, "cancel")
        await fed.reaches(job, "cancelled")
        # Nobody reads any more of what was left behind.
        await until(lambda: fed.regions["east"].region.service.records[job].snapshot is None)
        assert len((await fed.http.get("/v1/jobs")).json()) == (2 if state == "queued" else 1)


async def test_there_and_back(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=1, region="east")
        await fed.reaches(job, "running")
        for hops, to in enumerate(["west", "east", "west"], 1):
            await fed.post(job, "migrate", to=to, copy_ahead=False)
            await fed.reaches(job, "running", region=to)
            assert fed.regions[to].region.service.records[job].hops == hops
            assert fed.owners(job) == [to]


async def test_a_node_and_a_number_of_devices_may_be_named(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        await fed.add(node("w2", "west"))
        job = await fed.submit(devices=2, region="east")
        await fed.reaches(job, "running")
        await fed.post(job, "resize", devices=1, to="w2")
        view = await fed.reaches(job, "running", region="west")
        assert {r["node"] for r in view["ranks"]} == {"w2"} and view["devices_now"] == 1
        ahead = [move for move in view["moves"] if move["kind"] == "copy-ahead"]
        assert ahead[0]["ok"] and ahead[0]["nbytes"] == 7, "a checkpoint went before it"
        copied = [name for agent in fed.regions["west"].agents.values() for name in agent.copied]
        assert copied == [f"{job}-1.1"]
        assert not fed.regions["west"].region.sessions.errands.of("w1"), "nothing more is wanted"


async def test_where_it_cannot_run_it_does_not_go(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=2, region="east", device_type="cpu-1c")
        await fed.reaches(job, "running")
        await fed.add(node("w3", "west", 1, "other"))
        wide = await fed.submit(devices=1, device_type="other")
        await fed.reaches(wide, "running", region="west")
        refused = await fed.post(wide, "migrate", 422, to="east")
        assert refused["code"] == "no_such_device_type"
        assert (await fed.job(wide))["state"] == "running", "nothing was done"


async def test_what_is_turned_away_goes_on_where_it_was(tmp_path: Path) -> None:
    """The other region could have run it when it was asked, and cannot any more when it comes."""
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=2, region="east")
        await fed.reaches(job, "running")
        border = fed.regions["west"].region.border

        def refuse(_: object, why: str = "full") -> None:
            raise Rejected(422, "too_large", why)

        import midstep.control.between.passports as passports

        real = passports.check_possible
        calls = 0

        def first_yes(want: Any, fleet: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                refuse(want)
            real(want, fleet)

        passports.check_possible = first_yes
        try:
            await fed.post(job, "migrate", to="west", copy_ahead=False)
            await until(lambda: calls > 1)
            view = await fed.reaches(job, "running", region="east")
        finally:
            passports.check_possible = real
        assert [m["kind"] for m in view["moves"] if not m["ok"]] == ["migrate"]
        assert fed.owners(job) == ["east"] and border is not None
        await fed.post(job, "migrate", to="west", copy_ahead=False)  # another passport, with more hops
        await fed.reaches(job, "running", region="west")
        assert fed.owners(job) == ["west"]


async def test_a_job_that_waits_goes_where_devices_are_free(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        jobs = [await fed.submit(devices=2, tier="basic", min_devices=2) for _ in range(2)]
        await fed.reaches(jobs[0], "running", region="east")
        assert (await fed.reaches(jobs[1], "queued"))["state"] == "queued"
        await fed.add(node("w1", "west"))
        await fed.reaches(jobs[1], "running", region="west")
        why = (await fed.http.get(f"/v1/jobs/{jobs[1]}/why")).json()
        history = (await fed.http.get("/v1/events", params={"job": jobs[1], "wait_s": 2})).json()
        await asyncio.sleep(0.5)
        history = (await fed.http.get("/v1/events", params={"job": jobs[1]})).json()
        said = [event["message"] for event in history if event["kind"] == "scheduled"]
        assert "2 devices are free in west" in said[0]
        sent = [one for one in why["decisions"] if one["reason"] == "sent"]
        assert sent[0]["facts"] == {"region": "west"} and "2 devices are free in west" in sent[0]["message"]
        pinned = await fed.submit(devices=2, tier="basic", region="east", min_devices=2)
        await asyncio.sleep(1.5)
        assert fed.owners(pinned) == ["east"], "its user wants it there"


async def test_what_is_stranded_is_rescued(tmp_path: Path) -> None:
    """All nodes of a region are gone for good; its controller is there, and so are its snapshots."""
    async with federation(tmp_path) as fed:
        agent = await fed.add(node("e1", "east"))
        job = await fed.submit(devices=1)
        await fed.reaches(job, "running", region="east")
        await fed.post(job, "suspend")
        await fed.reaches(job, "suspended")
        await agent.stop()
        await until(lambda: not fed.regions["east"].region.fleet.connected)
        await fed.post(job, "resume")
        await fed.add(node("w1", "west"))
        await fed.reaches(job, "running", region="west")


async def test_a_region_that_is_cut_off_goes_on_alone(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        east = await fed.submit(devices=2, region="east", tier="basic", name="e", min_devices=2)
        west = await fed.submit(devices=2, region="west", tier="basic", name="w", min_devices=2)
        await fed.reaches(east, "running")
        await fed.reaches(west, "running")
        queued = await fed.submit(devices=2, region="east", tier="basic", name="q", min_devices=2)
        await fed.reaches(queued, "queued")
        assert fed.centre is not None
        members = fed.centre.members
        assert len((await fed.http.get("/v1/jobs")).json()) == 3
        fed.lines["east"].break_off()
        await until(lambda: members.cut_off == ("east",))
        # Seen from above: the rest works, and what cannot be reached is said.
        listed = {j["name"]: j for j in (await fed.http.get("/v1/jobs")).json()}
        assert set(listed) == {"e", "w", "q"} and "cannot be reached" in listed["e"]["reason"]
        members.by_name["east"]._silent_s = -1e9  # for longer than anybody waits
        refused = await fed.http.post("/v1/jobs/e/suspend")
        assert (refused.status_code, refused.json()["code"]) == (503, "region_cut_off")
        refused = await fed.http.post("/v1/jobs/w/migrate", json={"to": "east"})
        assert (refused.status_code, refused.json()["code"]) == (503, "region_cut_off")
        assert (await fed.http.put("/v1/quotas/team", json={"devices": 2})).status_code == 503
        assert (await fed.http.get("/v1/health")).json()["cut_off"] == ["east"]
        # There: it is asked itself, and decides.
        alone = fed.regions["east"]
        await alone.agents["e1"].finish(east, {0: 0, 1: 0})
        await alone.reaches(queued, "running")
        mine = await alone.submit(devices=1, name="mine", tier="basic")
        assert (await alone.job(mine))["state"] in ("queued", "starting", "running")
        new = await fed.submit(devices=1, name="new")  # goes where somebody answers
        assert fed.owners(new) == ["west"]
        fed.lines["east"].cut = False
        await until(lambda: not members.cut_off)
        listed = {j["name"]: j["state"] for j in (await fed.http.get("/v1/jobs")).json()}
        assert listed["e"] == "completed" and listed["q"] == "running" and "mine" in listed


async def test_a_quota_is_of_the_whole_fleet(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east", 4))
        await fed.add(node("w1", "west", 2))
        view = (await fed.http.put("/v1/quotas/team/a", json={"devices": 5, "weight": 2.0})).json()
        assert view["devices"] == 5
        parts = [fleet.region.quotas.all["team/a"].devices for fleet in fed.regions.values()]
        assert parts == [3, 2]
        whole = {q["project"]: q["devices"] for q in (await fed.http.get("/v1/quotas")).json()}
        assert whole["team/a"] == 5
        assert (await fed.http.delete("/v1/quotas/team/a")).status_code == 204
        assert all("team/a" not in fleet.region.quotas.all for fleet in fed.regions.values())


class Faults:
    """The n-th request between controllers about a hand-over is lost: on its way there, or on its way back;
    and the global controller dies with it."""

    def __init__(self, number: int, *, arrives: bool) -> None:
        self.number, self.arrives, self.count, self.hit = number, arrives, 0, False
        self._real = Member.request

    def __enter__(self) -> Faults:
        faults = self

        async def request(member: Member, method: str, path: str, **more: Any) -> Any:
            about = "/internal/jobs" in path
            faults.count += about
            lost = about and faults.count - 1 == faults.number and not faults.hit
            if lost and not faults.arrives:
                faults.hit = True
                raise Rejected(503, "region_cut_off", "lost")
            answer = await faults._real(member, method, path, **more)
            if lost:
                faults.hit = True
                raise Rejected(503, "region_cut_off", "lost")
            return answer

        Member.request = request  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Member.request = self._real  # type: ignore[method-assign]


LOSSES = [(number, arrives) for number in range(2, 9) for arrives in (False, True)]
AT_ONCE = ((2, True), (4, False), (4, True), (6, False))  # the others: make soak


@pytest.mark.parametrize(
    ("number", "arrives"),
    [pytest.param(*one, marks=() if one in AT_ONCE else pytest.mark.soak) for one in LOSSES],
)
async def test_any_request_may_be_lost_with_the_global_controller(
    tmp_path: Path, number: int, arrives: bool
) -> None:
    """The job ends up in one region, and runs there."""
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=1, region="east")
        await fed.reaches(job, "running")
        with Faults(number, arrives=arrives) as faults:
            body = {"to": "west", "copy_ahead": False}
            asked = await fed.http.post(f"/v1/jobs/{job}/migrate", json=body)
            for _ in range(300):
                assert len(fed.owners(job)) <= 1, "two regions have it"
                if faults.hit or fed.owners(job) == ["west"]:
                    break
                await asyncio.sleep(0.01)
            await fed.stop()
            await asyncio.sleep(0.3)
            await fed.start()
            if asked.status_code != 202:  # its user was told that it may not have been done, and looks
                assert asked.json()["code"] == "region_cut_off"
                again = await fed.http.post(f"/v1/jobs/{job}/migrate", json=body)
                assert again.status_code == 202 or again.json()["code"] in ("is_migrating", "already_there")
            view = await fed.reaches(job, "running", region="west")
        assert fed.owners(job) == ["west"] and view["epoch"] > 1
        goals = [goal for name, _, goal in fed.regions["west"].agents["w1"].history if name == job]
        assert goals, "it runs there"


async def test_a_running_job_is_not_cut_before_there_is_room(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=2, region="east", tier="basic", min_devices=2)
        other = await fed.submit(devices=2, region="west")
        await fed.reaches(job, "running")
        await fed.reaches(other, "running")
        await fed.post(job, "migrate", to="west", copy_ahead=False)
        await asyncio.sleep(1.5)
        view = await fed.job(job)
        assert (view["state"], view["region"]) == ("running", "east"), "it runs on meanwhile"
        assert "until devices are free in region west" in view["reason"]
        fed.lines["west"].break_off()  # nor when nobody answers there
        await asyncio.sleep(0.5)
        fed.lines["west"].cut = False
        await fed.post(other, "cancel")
        await fed.reaches(job, "running", region="west")


async def test_where_its_user_sent_it_it_stays(tmp_path: Path) -> None:
    """It waits there, though devices are free where it came from."""
    async with federation(tmp_path) as fed:
        await both(fed)
        other = await fed.submit(devices=2, region="west", tier="premium")
        await fed.reaches(other, "running")
        job = await fed.submit(devices=2, region="east", tier="basic", min_devices=2)
        await fed.reaches(job, "running")
        await fed.post(job, "suspend")
        await fed.reaches(job, "suspended")
        await fed.post(job, "migrate", to="west", copy_ahead=False)
        await until(lambda: fed.owners(job) == ["west"])
        log = fed.regions["west"].region.logs
        await asyncio.sleep(1.5)
        assert fed.owners(job) == ["west"]
        files = await fed.http.get(f"/v1/jobs/{job}/files")
        assert b"out.txt" in files.content, "they are still where they were"
        refused = await fed.http.post("/v1/jobs", json={"from_snapshot": job})
        assert (refused.status_code, refused.json()["code"]) == (409, "no_snapshot"), "it is not here yet"
        await fed.post(other, "cancel")
        await fed.reaches(job, "running", region="west")
        assert log.size(job, 0) == 0


async def test_what_a_job_has_written_goes_with_it(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        other = await fed.submit(devices=2, region="west", tier="premium")
        job = await fed.submit(devices=2, region="east")
        await fed.reaches(job, "running")
        await fed.reaches(other, "running")
        await fed.regions["east"].agents["e1"].write_log(job, 1, 0, b"step 1\n")
        await until(lambda: fed.regions["east"].region.logs.size(job, 1) == 7)
        await fed.post(job, "suspend")
        await fed.reaches(job, "suspended")
        await fed.post(job, "migrate", to="west")
        await until(lambda: fed.owners(job) == ["west"])
        said = (await fed.http.get(f"/v1/jobs/{job}/logs", params={"rank": 1})).json()
        assert said["text"] == "step 1\n"
        await fed.post(job, "cancel")
        await fed.reaches(job, "cancelled")
        assert (await fed.http.get(f"/v1/jobs/{job}/logs", params={"rank": 1})).json()["text"] == "step 1\n"


async def test_copy_ahead_that_is_called_off_while_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked, late = Member.ask, asyncio.Event(), asyncio.Event()

    async def slow(self: Member, method: str, path: str, *rest: Any, **more: Any) -> Any:
        if path == "/v1/internal/copies":
            asked.set()
            await late.wait()
        return await real(self, method, path, *rest, **more)

    monkeypatch.setattr(Member, "ask", slow)
    async with federation(tmp_path) as fed:
        await both(fed)
        fed.regions["west"].agents["w1"].brings = False
        job = await fed.submit(devices=1, region="east")
        await fed.reaches(job, "running")
        await fed.post(job, "migrate", to="west")
        await asyncio.wait_for(asked.wait(), 20)
        await fed.post(job, "resume")
        await asyncio.sleep(1)  # by now it was said that it is not wanted
        late.set()
        errands = fed.regions["west"].region.sessions.errands
        await asyncio.sleep(1)
        assert not errands.of("w1")


async def test_copy_ahead_that_is_called_off_leaves_nothing(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        fed.regions["west"].agents["w1"].brings = False  # so it is copied for ever
        job = await fed.submit(devices=1, region="east")
        await fed.reaches(job, "running")
        errands = fed.regions["west"].region.sessions.errands
        for _ in range(2):
            await fed.post(job, "migrate", to="west")
            await until(lambda: bool(errands.of("w1")))
            await fed.post(job, "resume")
            await until(lambda: not errands.of("w1"))
        assert (await fed.job(job))["region"] == "east"
        fed.regions["west"].agents["w1"].brings = True
        await fed.post(job, "migrate", to="west")
        view = await fed.reaches(job, "running", region="west")
        assert [m["ok"] for m in view["moves"] if m["kind"] == "copy-ahead"] == [True]


async def test_what_a_job_cannot_have_is_refused_before_it_is_cut(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed, 5)
        await fed.add(node("w2", "west"))
        job = await fed.submit(devices=2, region="east")
        part = await fed.submit(devices=0.5, region="east")
        await fed.reaches(job, "running")
        await fed.reaches(part, "running")
        for name, devices in ((job, 5), (job, 0), (job, -1), (part, 1)):
            refused = await fed.post(name, "resize", 422, devices=devices, to="west")
            assert refused["code"] == "invalid", refused
        assert (await fed.http.post("/v1/nodes/w2/cordon")).status_code == 200
        refused = await fed.post(job, "migrate", 409, to="w2")
        assert refused["code"] == "node_cordoned"
        assert [(await fed.job(name))["state"] for name in (job, part)] == ["running", "running"]


async def test_what_would_be_turned_away_is_not_sent_again_and_again(tmp_path: Path) -> None:
    """The policy sees free devices, the region would not take it."""
    async with federation(tmp_path) as fed:
        await fed.add(node("e1", "east"))
        first = await fed.submit(devices=2, tier="basic", min_devices=2)
        await fed.reaches(first, "running")
        job = await fed.submit(devices=2, tier="basic", min_devices=2)
        await fed.reaches(job, "queued")
        calls = 0

        def no(_: Any) -> None:
            nonlocal calls
            calls += 1
            raise Rejected(422, "impossible", "not here")

        fed.regions["west"].region.border.check = no  # type: ignore[method-assign]
        await fed.add(node("w1", "west"))
        await until(lambda: calls == 1)
        await asyncio.sleep(2)
        assert calls == 1 and fed.owners(job) == ["east"]
        assert fed.regions["east"].region.service.records[job].hops == 0


async def test_a_region_that_went_with_a_job_is_said_to_be_cut_off(tmp_path: Path) -> None:
    """The global controller was started again since: all that it is told of the job is that it went."""
    async with federation(tmp_path) as fed:
        await both(fed)
        job = await fed.submit(devices=1, region="east")
        await fed.reaches(job, "running")
        await fed.post(job, "migrate", to="west", copy_ahead=False)
        await fed.reaches(job, "running", region="west")
        fed.lines["west"].break_off()
        await fed.stop()
        await fed.start(wait=False)
        assert fed.centre is not None
        members = fed.centre.members
        await until(lambda: members.by_name["east"].reachable)
        refused = await fed.http.post(f"/v1/jobs/{job}/suspend")
        assert (refused.status_code, refused.json()["code"]) == (503, "region_cut_off")
        fed.lines["west"].cut = False
        await fed.reaches(job, "running", region="west")


async def test_parts_of_a_quota_follow_those_of_its_parent(tmp_path: Path) -> None:
    async with federation(tmp_path) as fed:
        await both(fed)
        assert (await fed.http.put("/v1/quotas/team", json={"devices": 3})).status_code == 200
        for child in "abc":
            response = await fed.http.put(f"/v1/quotas/team/{child}", json={"devices": 1})
            assert response.status_code == 200, response.text
        refused = await fed.http.put("/v1/quotas/team/d", json={"devices": 1})
        assert refused.status_code == 409
        quotas = [fleet.region.quotas.all for fleet in fed.regions.values()]
        assert all("team/d" not in known for known in quotas), "none of them keeps it"
        assert [sum(known[f"team/{c}"].devices for c in "abc") for known in quotas] == [2, 1]
        fed.regions["east"].region.quotas.forget("team/a")  # as if the rest had not been heard of
        assert (await fed.http.delete("/v1/quotas/team/a")).status_code == 204
        assert (await fed.http.delete("/v1/quotas/team/a")).status_code == 404


async def test_a_snapshot_of_a_job_that_no_region_knows(tmp_path: Path) -> None:
    """A region is lost with its controller; a copy of a snapshot is in another one's vault."""
    async with federation(tmp_path / "lost") as fed:
        await both(fed)
        job = await fed.submit(devices=2, region="east", env={"A": "b"}, name="train")
        await fed.reaches(job, "running")
        await fed.post(job, "suspend")
        snapshot = (await fed.reaches(job, "suspended"))["snapshot"]
    root = tmp_path / "left"
    shutil.copytree(tmp_path / "lost/east/snapshots" / snapshot, root / "west/snapshots" / snapshot)
    async with federation(root) as fed:
        await both(fed)
        fork = await fed.submit(command=(), from_snapshot=snapshot)
        view = await fed.reaches(fork, "running", region="west")
        assert view["name"] == "train"
        assert fed.regions["west"].region.service.records[fork].spec.env == {"A": "b"}
        missing = await fed.http.post("/v1/jobs", json={"from_snapshot": "j-000000-1"})
        assert (missing.status_code, missing.json()["code"]) == (404, "no_such_job")
