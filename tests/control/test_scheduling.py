"""Cordons, drains, quotas, the queue and the reasons, over real connections with fake agents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from midstep.model.phase import Failure, Fault, Goal
from midstep.wire.agent import Assignment
from tests.control.fake_agent import node
from tests.control.harness import Fleet, running, until


async def drain(fleet: Fleet, name: str, **body: Any) -> dict[str, Any]:
    response = await fleet.http.post(f"/v1/nodes/{name}/drain", json=body)
    assert response.status_code == 202, response.text
    return response.json()


async def drained(fleet: Fleet, name: str) -> dict[str, Any]:
    return (await fleet.http.get(f"/v1/nodes/{name}/drain")).json()


async def why(fleet: Fleet, job: str) -> dict[str, Any]:
    return (await fleet.http.get(f"/v1/jobs/{job}/why")).json()


async def test_a_drain_moves_everything_and_leaves_a_cordon(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        for name, region in (("e1", "east"), ("e2", "east"), ("w1", "west")):
            await fleet.add(node(name, region))
        pair = await fleet.submit(devices=2, node="e1", name="pair")
        await fleet.reaches(pair, "running")
        tied = (await drain(fleet, "e1"))["left"]
        assert [(one["state"], "--node" in one["reason"] or "node e1" in one["reason"]) for one in tied] == [
            ("stuck", True)
        ]
        await fleet.post(pair, "migrate", to="e2")
        await until(lambda: fleet.region.service.records[pair].settled)
        assert (await drained(fleet, "e1"))["done"]

        two = [await fleet.submit(name=f"one-{i}", region="west") for i in range(2)]
        for job in two:
            await fleet.reaches(job, "running")
        await fleet.http.post("/v1/nodes/e1/uncordon")
        view = await drain(fleet, "e2")
        assert [one["job_id"] for one in view["left"]] == [pair]
        await until(lambda: {n.node for n in fleet.region.service.records[pair].nodes} == {"e1"})
        await until(lambda: fleet.region.service.records[pair].settled)
        view = await drained(fleet, "e2")
        assert view["done"] and view["moved"] == [pair]
        job = await fleet.job(pair)
        assert [m["kind"] for m in job["moves"] if m["ok"]][-1] == "migrate"
        nodes = {n["name"]: n["cordoned"] for n in (await fleet.http.get("/v1/nodes")).json()}
        assert nodes == {"e1": False, "e2": True, "w1": False}
        assert (await why(fleet, pair))["decisions"][-1]["reason"] == "node_drained"


async def test_what_cannot_leave_is_said_and_suspended_at_the_deadline(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        await fleet.add(node("e2"))
        jobs = [await fleet.submit(devices=2, name=f"j{i}") for i in range(2)]
        for job in jobs:
            await fleet.reaches(job, "running")
        where = {job: (await fleet.job(job))["ranks"][0]["node"] for job in jobs}
        here = next(job for job in jobs if where[job] == "e1")
        view = await drain(fleet, "e1")
        assert [(one["state"], one["reason"]) for one in view["left"]] == [
            ("waiting", "waits for 2 devices at east: 0 free, at most 0 on one node")
        ]
        await drain(fleet, "e1", deadline_s=0)
        await fleet.reaches(here, "queued")
        await until(lambda: not fleet.region.service.records[here].leftovers)
        assert (await drained(fleet, "e1"))["done"]
        decided = [one["reason"] for one in (await why(fleet, here))["decisions"]]
        assert decided[-2:] == ["drain_overdue", "behind"]
        assert "node e1 were uncordoned (`midstep uncordon e1`)" in (await why(fleet, here))["would_run_if"]
        await fleet.http.post("/v1/nodes/e1/uncordon")
        view = await fleet.reaches(here, "running")
        assert {rank["node"] for rank in view["ranks"]} == {"e1"}


async def test_a_dump_that_fails_is_not_tried_again_at_once(tmp_path: Path) -> None:
    def fails(wanted: Assignment) -> Failure | None:
        return Failure("dump", "a device is open", Fault.JOB_STATE) if wanted.goal is Goal.DUMP else None

    async with running(tmp_path, regions=("east",)) as fleet:
        agent = await fleet.add(node("e1"), fails)
        job = await fleet.submit()
        await fleet.reaches(job, "running")
        await fleet.add(node("e2"))
        await drain(fleet, "e1")
        await until(lambda: len(fleet.region.service.records[job].moves) > 0)
        await until(lambda: fleet.region.service.records[job].settled)
        view = await drained(fleet, "e1")
        assert view["left"][0]["state"] == "waiting" and "a device is open" in view["left"][0]["reason"]
        fleet.region.planner.plan()
        assert sum(goal is Goal.DUMP for _, _, goal in agent.history) == 1


async def test_cordons_quotas_and_accounts_outlive_the_controller(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        await fleet.add(node("e1"))
        job = await fleet.submit(project="vision/detect", priority="high")
        await fleet.reaches(job, "running")
        assert (await fleet.http.post("/v1/nodes/e1/cordon")).json()["cordoned"]
        for project, devices in (("vision", 4), ("vision/detect", 3)):
            answer = await fleet.http.put(f"/v1/quotas/{project}", json={"devices": devices, "weight": 2})
            assert answer.status_code == 200, answer.text
        refused = await fleet.http.put("/v1/quotas/vision/other", json={"devices": 2})
        assert refused.status_code == 409 and refused.json()["code"] == "quota_exceeded"
        before = (await fleet.job(job))["received"]
        await fleet.agents["e1"].stop()
    async with running(tmp_path) as fleet:
        await fleet.add(node("e1"))
        await fleet.reaches(job, "running")
        late = await fleet.submit(name="late")
        view = await fleet.reaches(late, "queued")
        await until(lambda: bool(fleet.region.service.records[late].waiting))
        assert "cordoned" in (await fleet.job(late))["reason"]
        quotas = {q["project"]: q for q in (await fleet.http.get("/v1/quotas")).json()}
        assert quotas["vision"]["used"] == 1 and quotas["vision/detect"]["devices"] == 3
        after = (await fleet.job(job))["received"]
        assert after["asked_s"] > before["asked_s"] and after["received_s"] >= before["received_s"] > 0
        assert (await fleet.http.delete("/v1/quotas/vision/detect")).status_code == 204
        assert view["tier"] == "standard"


async def test_fair_shares_are_shown(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1", devices=4))
        for project, body in (("a", {"devices": 0, "weight": 3}), ("b", {"devices": 0})):
            assert (await fleet.http.put(f"/v1/quotas/{project}", json=body)).status_code == 200
        for project in ("a", "a", "a", "a", "b", "b", "b", "b"):
            await fleet.submit(project=project, tier="basic")

        def fair() -> dict[str, float | None]:
            return {one.project: one.fair for one in fleet.region.planner.pilot.scheduler.usage()}

        await until(lambda: fair() == {"a": 3.0, "b": 1.0})
        views = {q["project"]: (q["weight"], q["fair"]) for q in (await fleet.http.get("/v1/quotas")).json()}
        assert views == {"a": (3.0, 3.0), "b": (1.0, 1.0)}


async def test_the_queue_is_in_order_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1", devices=1))
        first = await fleet.submit(tier="premium", name="first")
        await fleet.reaches(first, "running")
        for name, priority in (("c", "low"), ("b", "medium"), ("a", "high")):
            await fleet.submit(tier="basic", priority=priority, name=name)
        await until(lambda: all(r.waiting for r in fleet.region.service.records.values() if r.waits))
        queue = (await fleet.http.get("/v1/queue")).json()
        assert [(q["place"], q["name"]) for q in queue] == [(1, "a"), (2, "b"), (3, "c")]
        assert {q["reason"] for q in queue} == {"behind"}
        found = await why(fleet, "a")
        assert [(d["action"], d["facts"]["asked"]) for d in found["decisions"]] == [("wait", "1")]
        assert found["would_run_if"] == ["job first ended or were suspended"]


async def test_promises_stand_on_spot_nodes_only_where_the_job_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("firm", devices=1))
        await fleet.add(replace(node("brief", devices=4), spot=True))
        nodes = {n["name"]: n["spot"] for n in (await fleet.http.get("/v1/nodes")).json()}
        assert nodes == {"firm": False, "brief": True}
        job = {"command": ["x"], "devices": 2, "tier": "premium"}
        refused = await fleet.http.post("/v1/jobs", json=job)
        assert refused.status_code == 409 and "1" in refused.json()["detail"], refused.text
        taken = await fleet.http.post("/v1/jobs", json={**job, "spot_ok": True})
        assert taken.status_code == 201, taken.text
        await fleet.reaches(taken.json()["job_id"], "running")
        # Without a tier it runs all the same, promised nothing.
        spare = await fleet.submit(devices=2)
        assert (await fleet.reaches(spare, "running"))["tier"] == "basic"


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        await fleet.add(node("e1", devices=4))
        for fields, word in (
            ({"min_devices": 3, "devices": 2}, "min_devices"),
            ({"devices": 4, "ranks": 2, "min_devices": 1}, "min_devices"),
            ({"project": "a//b"}, "project"),
            ({"priority": "urgent"}, "priority"),
            ({"elastic": False, "devices": 2, "min_devices": 1}, "min_devices"),
        ):
            answer = await fleet.http.post("/v1/jobs", json={"command": ["x"], **fields})
            assert answer.status_code == 422 and word in answer.json()["title"], (fields, answer.text)
        assert (await fleet.http.post("/v1/nodes/none/cordon")).status_code == 404
        assert (await fleet.http.post("/v1/nodes/e1/uncordon")).status_code == 409
        assert (await fleet.http.get("/v1/nodes/e1/drain")).json()["code"] == "not_draining"


async def test_a_drain_can_be_tried_on_paper(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        jobs = [await fleet.submit(name=f"j{i}", elastic=False) for i in range(2)]
        for job in jobs:
            await fleet.reaches(job, "running")
        await fleet.add(node("e2", devices=1))
        answer = (await fleet.http.post("/v1/plan", json={"drain": "e1"})).json()
        assert [(one["job_id"], one["action"], one["reason"]) for one in answer["steps"]] == [
            (jobs[0], "migrate", "node_drained"),
            (jobs[1], "wait", "no_capacity"),
        ], "the first one takes the only device"
        assert not answer["fits"] and "1 of 2 jobs cannot leave" in answer["summary"]
        await fleet.add(node("e3", devices=1))
        answer = (await fleet.http.post("/v1/plan", json={"drain": "e1"})).json()
        assert answer["fits"] and len(answer["steps"]) == 2
        assert {r["node"] for job in jobs for r in (await fleet.job(job))["ranks"]} == {"e1"}
        assert (await fleet.http.post("/v1/plan", json={})).status_code == 422


async def test_a_promise_goes_before_what_is_spare(tmp_path: Path) -> None:
    """A premium job takes devices from a basic one, which is shrunk, then suspended, and has them back."""
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1", devices=4))
        lowly = await fleet.submit(ranks=4, tier="basic")
        await fleet.reaches(lowly, "running")
        assert (await fleet.job(lowly))["devices_now"] == 4
        first = await fleet.submit(devices=2, tier="premium")
        await fleet.reaches(first, "running")
        records = fleet.region.service.records
        await until(lambda: records[lowly].settled and records[lowly].devices == 2)
        second = await fleet.submit(devices=2, tier="premium")
        await fleet.reaches(second, "running")
        assert (await fleet.reaches(lowly, "queued"))["devices_now"] == 0
        assert "behind" in [one["reason"] for one in (await why(fleet, lowly))["decisions"]]
        third = await fleet.http.post("/v1/jobs", json={"command": ["x"], "tier": "premium"})
        assert third.status_code == 409 and third.json()["code"] == "no_guarantee", third.text

        for job in (first, second):
            await fleet.post(job, "cancel")
        await until(lambda: records[lowly].devices == 4 and records[lowly].settled)
        decided = [(one["action"], one["reason"]) for one in (await why(fleet, lowly))["decisions"]]
        assert ("resize", "gave") in decided and ("suspend", "gave") in decided
        fleet.region.planner.pilot.scheduler.check()


async def test_without_a_tier_a_job_is_what_can_be_promised(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        jobs = [await fleet.submit() for _ in range(4)]
        tiers = [(await fleet.job(job))["tier"] for job in jobs]
        assert tiers[:2] == ["standard", "standard"] and tiers[2:] == ["basic", "basic"]
        assert "no_guarantee" in [one["reason"] for one in (await why(fleet, jobs[3]))["decisions"]]


async def test_a_word_of_its_user_is_kept_to(tmp_path: Path) -> None:
    """Resized by hand it is neither grown nor shrunk; suspended by hand it is not started."""
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1", devices=4))
        job = await fleet.submit(ranks=4, tier="basic")
        await fleet.reaches(job, "running")
        await fleet.post(job, "resize", devices=3)
        records = fleet.region.service.records
        await until(lambda: records[job].settled and records[job].devices == 3)
        fleet.region.planner.plan()
        assert records[job].devices == records[job].wanted == 3
        other = await fleet.submit(devices=2, tier="premium")
        await fleet.reaches(other, "running")
        view = await fleet.reaches(job, "queued")
        assert view["devices_wanted"] == 3, "as a whole it may be suspended"
        await fleet.post(other, "suspend")
        await fleet.reaches(other, "suspended")
        await fleet.reaches(job, "running")
        fleet.region.planner.plan()
        assert (await fleet.job(other))["state"] == "suspended"
        await fleet.post(job, "resize", devices=None)
        await until(lambda: records[job].settled and records[job].devices == 4)
        fleet.region.planner.pilot.scheduler.check()


async def test_a_plan_of_a_submission_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        lowly = await fleet.submit(ranks=2, tier="basic", name="lowly")
        await fleet.reaches(lowly, "running")
        job = {"command": ["x"], "tier": "premium", "name": "new"}
        answer = (await fleet.http.post("/v1/plan", json={"submit": job})).json()
        assert answer["fits"] and answer["tier"] == "premium", answer
        assert [(s["name"], s["action"], s["reason"]) for s in answer["steps"]] == [
            ("lowly", "resize", "gave"),
            ("new", "start", "owed"),
        ]
        answer = (await fleet.http.post("/v1/plan", json={"submit": {**job, "tier": "basic"}})).json()
        assert not answer["fits"] and answer["steps"][0]["action"] == "wait"
        assert (await fleet.job(lowly))["devices_now"] == 2
        assert len((await fleet.http.get("/v1/jobs")).json()) == 1


async def test_a_job_that_starts_small_can_grow_over_nodes(tmp_path: Path) -> None:
    """Its virtual hosts are those of its region, not of the one node that it begins on."""
    async with running(tmp_path, regions=("east",)) as fleet:
        await fleet.add(node("e1"))
        await fleet.add(node("e2"))
        job = await fleet.submit(ranks=4, devices=2)
        await fleet.reaches(job, "running")
        records = fleet.region.service.records
        assert records[job].homes == ((0, 1), (2, 3))
        await fleet.post(job, "resize", devices=4)
        await until(lambda: records[job].settled and records[job].devices == 4)


async def test_nobody_waits_for_what_is_copied_ahead(tmp_path: Path) -> None:
    """Its devices become free when that has come to its end; others are free now."""
    async with running(tmp_path, beat_s=0.1) as fleet:
        for name, region in (("e1", "east"), ("w1", "west"), ("w2", "west")):
            await fleet.add(node(name, region))
        leaves = await fleet.submit(devices=2, region="east", tier="basic")
        await fleet.reaches(leaves, "running")
        await fleet.post(leaves, "migrate", to="w1")  # nobody brings anything: it is copied for minutes
        await until(lambda: fleet.region.service.records[leaves].next is not None)
        job = await fleet.submit(devices=2, tier="basic", min_devices=2)
        view = await fleet.reaches(job, "running")
        assert view["region"] == "west" and (await fleet.job(leaves))["region"] == "east"
