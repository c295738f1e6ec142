"""The controller with fake agents over real connections: a job's whole life."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from midstep.engine.deadlines import UNREACHABLE_S
from midstep.model.phase import Failure, Fault, Goal, Phase
from midstep.wire.agent import Assignment
from tests.control.fake_agent import node
from tests.control.harness import running, until


async def test_a_job_runs_is_suspended_resumed_and_completes(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        job = await fleet.submit(devices=2, name="first")
        view = await fleet.reaches(job, "running")
        assert [(r["rank"], r["node"], r["devices"]) for r in view["ranks"]] == [
            (0, "n1", [0]),
            (1, "n1", [1]),
        ]

        await fleet.post(job, "suspend")
        view = await fleet.reaches(job, "suspended")
        assert view["snapshot_bytes"] == 3
        assert [(m["kind"], m["ok"]) for m in view["moves"]] == [("suspend", True)]
        names = [step["step"] for step in view["moves"][0]["steps"]]
        assert names == ["freeze@n1", "drain@n1", "dump@n1", "store@n1", "commit", "remove@n1"]
        nodes = (await fleet.http.get("/v1/nodes")).json()
        assert [d["jobs"] for d in nodes[0]["devices"]] == [[], []]

        await fleet.post(job, "resume")
        view = await fleet.reaches(job, "running")
        assert [m["kind"] for m in view["moves"]] == ["suspend", "resume"]
        await agent.finish(job, {0: 0, 1: 0})
        view = await fleet.reaches(job, "completed")
        assert view["exit_code"] == 0
        await until(lambda: list(agent.vault.ids()) == [])


async def test_a_job_over_two_nodes_migrates_to_the_other_region(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        for name, region in (("e1", "east"), ("e2", "east"), ("w1", "west"), ("w2", "west")):
            await fleet.add(node(name, region))
        job = await fleet.submit(devices=4, region="east")
        view = await fleet.reaches(job, "running")
        assert {r["node"] for r in view["ranks"]} == {"e1", "e2"}
        peers = fleet.agents["e1"].wanted[job].peers
        assert [(p.index, p.host, p.port, p.ranks) for p in peers] == [
            (0, "addr-e1", 5000, (0, 1)),
            (1, "addr-e2", 5000, (2, 3)),
        ]
        await fleet.post(job, "migrate", to="west", copy_ahead=False)
        view = await fleet.reaches(job, "running")
        await until(lambda: fleet.region.service.records[job].back is None)
        view = await fleet.job(job)
        assert {r["node"] for r in view["ranks"]} == {"w1", "w2"} and view["region"] == "west"
        assert [(m["kind"], m["ok"]) for m in view["moves"]] == [("migrate", True)]
        held = [a for a in fleet.agents["w1"].history if a[2] is Goal.HOLD]
        assert len(held) == 1


async def test_a_rank_that_fails_stops_the_others_and_shows_its_last_lines(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        job = await fleet.submit(devices=2)
        await fleet.reaches(job, "running")
        await agent.finish(job, {1: 3}, ("Traceback", "ValueError: no"))
        view = await fleet.reaches(job, "failed")
        assert view["exit_code"] == 3 and view["failure"] == "rank 1 ended with exit code 3"
        assert view["last_lines"] == ["Traceback", "ValueError: no"]
        assert [r["exit_code"] for r in view["ranks"]] == [None, 3]


async def test_a_refused_dump_leaves_the_job_running(tmp_path: Path) -> None:
    def no_dump(wanted: Assignment) -> Failure | None:
        refusal = Failure("dump", "an open TCP listener on port 80", Fault.JOB_STATE, hint="close it")
        return refusal if wanted.goal is Goal.DUMP else None

    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"), no_dump)
        job = await fleet.submit()
        first = await fleet.reaches(job, "running")
        await fleet.post(job, "suspend")
        await until(lambda: len(fleet.region.service.records[job].moves) == 2)
        view = await fleet.reaches(job, "running")
        assert [(m["kind"], m["ok"]) for m in view["moves"]] == [("suspend", False), ("reconnect", True)]
        assert view["reason"] == "the last suspend failed: an open TCP listener on port 80"
        assert view["epoch"] == first["epoch"] + 1
        assert agent.jobs[job].phase is Phase.RUNNING


async def test_a_migration_that_fails_goes_back(tmp_path: Path) -> None:
    def broken(wanted: Assignment) -> Failure | None:
        return (
            Failure("restore", "no space left", Fault.NODE, intact=False)
            if wanted.goal is Goal.HOLD
            else None
        )

    async with running(tmp_path) as fleet:
        await fleet.add(node("n1"))
        job = await fleet.submit()
        await fleet.reaches(job, "running")
        await fleet.add(node("n2"), broken)
        await fleet.post(job, "migrate", to="n2")
        await until(lambda: len(fleet.region.service.records[job].moves) == 1)
        view = await fleet.reaches(job, "running")
        assert view["ranks"][0]["node"] == "n1"
        assert view["moves"][0]["ok"] is False and "no space left" in view["moves"][0]["message"]


async def test_cancel_in_the_queue_and_while_running(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        await fleet.add(node("n1", devices=1))
        runs, waits = await fleet.submit(), await fleet.submit()
        await fleet.reaches(runs, "running")
        view = await fleet.reaches(waits, "queued")
        assert view["reason"].startswith("waits for 1 device: 0 free")
        assert (await fleet.post(waits, "cancel"))["state"] == "cancelled"
        await fleet.post(runs, "cancel")
        assert (await fleet.reaches(runs, "cancelled"))["exit_code"] is None


async def test_logs_are_appended_rewound_and_gaps_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        job = await fleet.submit()
        await fleet.reaches(job, "running")

        async def text() -> str:
            return (await fleet.http.get(f"/v1/jobs/{job}/logs")).json()["text"]

        await agent.write_log(job, 0, 0, b"one\ntwo\n")
        await agent.write_log(job, 0, 4, b"2\n")
        await agent.write_log(job, 0, 100, b"lost")
        size = fleet.region.logs.size
        await until(lambda: agent.wanted[job].log_bytes == {0: 6} and size(job, 0) == 6)
        assert await text() == "one\n2\n"


async def test_a_lost_node_is_named_and_the_job_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        job = await fleet.submit()
        await fleet.reaches(job, "running")
        await agent.stop()
        await until(lambda: bool(fleet.region.service.records[job].lost))
        view = await fleet.job(job)
        assert view["state"] == "running" and view["reason"].startswith("not connected: n1 (since ")
        async with agent:
            await until(lambda: not fleet.region.service.records[job].lost)
        assert [a for a in agent.history if a[2] is Goal.HOLD] == [(job, 1, Goal.HOLD)]


async def test_an_agent_with_another_token_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        agent.token = "other"
        await agent.stop()
        async with agent:
            await until(lambda: agent.refused is not None)
        assert agent.refused == "node n1 has another token than this fleet"


async def test_without_criu_a_job_is_frozen_and_goes_on_where_it_stands(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(replace(node("n1", devices=1), freezes_in_place=True))
        job = await fleet.submit()
        await fleet.reaches(job, "running")
        await fleet.post(job, "suspend")
        view = await fleet.reaches(job, "suspended")
        assert view["snapshot"] == "" and "stopped in place" in view["moves"][0]["message"]
        other = await fleet.submit()
        await fleet.reaches(other, "running")
        await fleet.post(job, "resume")
        view = await fleet.reaches(job, "queued")
        assert "where it stands frozen" in view["reason"]
        await fleet.post(other, "cancel")
        await fleet.reaches(job, "running")
        assert [goal for name, _, goal in agent.history if name == job] == [
            Goal.HOLD,
            Goal.RUN,
            Goal.DUMP,
            Goal.HOLD,
            Goal.RUN,
        ]


async def test_a_migration_waits_for_devices_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        await fleet.add(node("e1", devices=1))
        await fleet.add(node("w1", "west", devices=1))
        stays = await fleet.submit(node="w1")
        moves = await fleet.submit(node="e1")
        await fleet.reaches(stays, "running")
        await fleet.reaches(moves, "running")
        await fleet.post(moves, "migrate", to="west", copy_ahead=False)
        await until(lambda: fleet.region.service.records[moves].waiting != "")
        view = await fleet.job(moves)
        assert view["state"] == "running"
        assert view["reason"] == (
            "to migrate to region west, it waits for 1 device at west: 0 free, at most 0 on one node"
        )
        await fleet.post(stays, "cancel")
        await until(lambda: fleet.region.service.records[moves].moves != ())
        view = await fleet.reaches(moves, "running")
        assert view["ranks"][0]["node"] == "w1" and view["region"] == "west"


async def test_cancel_does_not_wait_long_for_a_node_that_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        agent = await fleet.add(node("n1"))
        job = await fleet.submit()
        await fleet.reaches(job, "running")
        await agent.stop()
        await until(lambda: bool(fleet.region.service.records[job].lost))
        await fleet.post(job, "cancel")
        record = fleet.region.service.records[job]
        assert record.deadline_s is not None
        assert record.deadline_s - fleet.region.service.now_s() < UNREACHABLE_S + 1
        async with agent:
            await fleet.reaches(job, "cancelled")


async def test_a_job_is_resized_within_its_node_and_over_nodes(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        for name in ("e1", "e2"):
            await fleet.add(node(name))
        job = await fleet.submit(devices=4)
        await fleet.reaches(job, "running")

        async def becomes(devices: int) -> dict[str, Any]:
            done = len(fleet.region.service.records[job].moves)
            view = await fleet.post(job, "resize", devices=devices)
            assert view["devices_wanted"] == devices
            await until(lambda: fleet.region.service.records[job].devices == devices)
            await until(lambda: len(fleet.region.service.records[job].moves) > done)
            return await fleet.reaches(job, "running")

        view = await becomes(2)
        assert {r["node"] for r in view["ranks"]} == {"e1", "e2"} and view["moves"][-1]["nbytes"] == 0
        assert Goal.DUMP not in [goal for _, _, goal in fleet.agents["e1"].history]
        view = await becomes(1)
        assert len({r["node"] for r in view["ranks"]}) == 1 and view["moves"][-1]["ok"]
        await until(lambda: list(fleet.agents["e1"].vault.ids()) == [])
        (left,) = {"e1", "e2"} - {r["node"] for r in view["ranks"]}
        await until(lambda: job not in fleet.agents[left].jobs)
        response = await fleet.http.post(f"/v1/jobs/{job}/resize", json={"devices": 1})
        assert (response.status_code, response.json()["code"]) == (409, "already_that_size")
        for devices, code in ((0, "invalid"), (5, "invalid"), ("many", "invalid")):
            response = await fleet.http.post(f"/v1/jobs/{job}/resize", json={"devices": devices})
            assert (response.status_code, response.json()["code"]) == (422, code)


async def test_a_resize_waits_for_devices_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as fleet:
        await fleet.add(node("e1"))
        small, other = await fleet.submit(devices=1, ranks=2), await fleet.submit(devices=1)
        for job in (small, other):
            await fleet.reaches(job, "running")
        await fleet.post(small, "resize", devices=2)
        await until(lambda: fleet.region.service.records[small].waiting != "")
        view = await fleet.job(small)
        assert (view["state"], view["devices_now"]) == ("running", 1)
        assert view["reason"].startswith("to have 2 devices in place of 1, it waits for 2 devices")
        await fleet.post(other, "cancel")
        await until(lambda: fleet.region.service.records[small].devices == 2)
        assert (await fleet.reaches(small, "running"))["devices_now"] == 2
