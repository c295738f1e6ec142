"""Guarantees for parts of devices, and beside them, are kept: who has none makes room, who has one moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.model.tiers import Priority
from midstep.policy.asks import Ask, Grant, stands_on
from midstep.policy.ledger import Job
from midstep.policy.packing import Key, hole
from midstep.policy.plan import Plan, Resize, Suspend
from tests.policy.world import BASIC, PREMIUM, STANDARD, World

FEW, MANY = 60, 4_000
DEVICES = 2  # of a node


class Watched(World):
    """Keeps books of its own: what an action gives is free when its turn comes."""

    def __init__(self, nodes: int) -> None:
        self.had: dict[str, Grant] = {}
        self.log: list[str] = []
        super().__init__(nodes, DEVICES)

    def decide(self) -> Plan:
        for action in super().decide().actions:
            self.log.append(repr(action))
            assert (action.job_id in self.had) == isinstance(action, Resize | Suspend)
            if isinstance(action, Suspend):
                del self.had[action.job_id]
            else:
                self.had[action.job_id] = action.grant
                self.no_device_is_given_beyond_one()
        return self.plan

    def ends(self, name: str) -> Plan:
        self.had.pop(name, None)
        return super().ends(name)

    def no_device_is_given_beyond_one(self) -> None:
        parts: dict[tuple[str, int], int] = {}
        used: dict[str, int] = {}
        for grant in self.had.values():
            (node,) = grant.nodes
            key = (node, grant.slot)
            if grant.slot < 0 or key not in parts:
                used[node] = used.get(node, 0) + 1
            if grant.slot >= 0:
                parts[key] = parts.get(key, 0) + grant.milli
        assert max(parts.values(), default=0) <= 1000 and max(used.values()) <= DEVICES

    def nothing_idles(self) -> None:
        (cluster,) = self.scheduler.clusters.values()
        (floor,) = cluster.floors.values()
        left = max([1000 * bool(floor.pool.free), *floor.pool.parts().values()])
        for job in self.scheduler.jobs.values():
            assert job.runs or job.ask.milli > left, f"{job.ask} would fit"

    def what_is_promised_runs(self) -> None:
        waits = [job.ask for job in self.scheduler.jobs.values() if job.tier.guarantee and not job.runs]
        assert not waits


def play(nodes: int, story: list[tuple[Any, ...]]) -> Watched:
    world = Watched(nodes)
    for number, event in enumerate(story):
        match event:
            case ("submit", int(milli), tier):
                world.submit(f"j{number}", tier=tier, milli=milli, or_basic=True)
            case ("end", int(which)) if world.scheduler.jobs:
                names = sorted(world.scheduler.jobs)
                world.ends(names[which % len(names)])
            case ("later", int(seconds)):
                world.later(seconds)
            case _:
                pass
        world.what_is_promised_runs()
        world.nothing_idles()
    world.later(300)
    world.what_is_promised_runs()
    world.nothing_idles()
    return world


sizes = st.sampled_from([1000, 900, 600, 500, 500, 400, 300, 250, 250, 200, 125, 100])
submits = st.tuples(st.just("submit"), sizes, st.sampled_from([PREMIUM, PREMIUM, STANDARD, BASIC]))
events = st.one_of(
    submits,
    submits,
    st.tuples(st.just("end"), st.integers(0, 30)),
    st.tuples(st.just("later"), st.sampled_from([1, 61, 400, 7200])),
)
stories = st.lists(events, max_size=40)


@settings(max_examples=FEW, deadline=None)
@given(st.integers(1, 3), stories)
def test_what_is_promised_runs_after_every_event(nodes: int, story: list[Any]) -> None:
    play(nodes, story)


@pytest.mark.soak
@settings(max_examples=MANY, deadline=None)
@given(st.integers(1, 4), st.lists(events, max_size=80))
def test_what_is_promised_runs_after_every_event_often(nodes: int, story: list[Any]) -> None:
    assert play(nodes, story).log == play(nodes, story).log


def slots(world: World, *names: str) -> list[tuple[str, int] | None]:
    grants = [world.scheduler.grant(name) for name in names]
    return [(grant.nodes[0], grant.slot) if grant else None for grant in grants]


def made(world: World) -> list[tuple[str, str]]:
    return [(type(action).__name__, action.job_id) for action in world.plan.actions]


@pytest.mark.parametrize("milli", [1000, 600])
def test_parts_without_a_guarantee_make_room_for_one(milli: int) -> None:
    world = World(nodes=1, devices=1)
    for name in "ab":
        world.submit(name, milli=500)
    assert world.submit("p", tier=PREMIUM, milli=milli).tier is PREMIUM
    assert world.has("p") and not world.has("a") and not world.has("b")


def test_no_more_of_them_than_are_needed() -> None:
    world = World(nodes=1, devices=2)
    world.submit("whole", tier=PREMIUM)
    for name, milli in (("a", 300), ("b", 300), ("c", 400)):
        world.submit(name, milli=milli)
    world.submit("p", tier=PREMIUM, milli=400)
    assert sum(map(world.has, "abc")) == 2 and world.has("p")


def test_parts_move_together_for_a_whole_device() -> None:
    world = World(nodes=1, devices=2)
    for name in "abcd":
        world.submit(name, milli=500, tier=PREMIUM)
    world.ends("a")
    world.ends("c")
    assert world.submit("p", tier=PREMIUM).tier is PREMIUM
    assert world.has("p") and slots(world, "b") == slots(world, "d")
    assert made(world) == [("Resize", "b"), ("Start", "p")], "as few as will do"


def test_who_has_no_guarantee_makes_room_for_those_that_move() -> None:
    world = World(nodes=1, devices=2)
    for name in "abcd":
        world.submit(name, milli=500, tier=BASIC if name in "ac" else PREMIUM)
    world.submit("p", tier=PREMIUM)
    assert world.has("p") and slots(world, "b") == slots(world, "d")
    assert not world.has("a") and not world.has("c")


def test_who_may_not_move_stays() -> None:
    world = World(nodes=1, devices=2)
    for name in "abcd":
        world.submit(name, milli=500, tier=PREMIUM, may_move=name == "b")
    (before,) = slots(world, "d")
    world.ends("a")
    world.ends("c")
    world.submit("p", tier=PREMIUM)
    assert world.has("p") and slots(world, "b", "d") == [before, before]


def test_nobody_is_stopped_where_it_would_not_help() -> None:
    world = World(nodes=1, devices=2)
    for name in "abcd":
        world.submit(name, milli=500, tier=BASIC if name in "ac" else PREMIUM, may_move=False)
    world.submit("p", tier=PREMIUM)
    assert not world.has("p") and made(world) == []
    assert all(map(world.has, "abcd"))


def test_who_can_afford_the_pause_moves() -> None:
    world = World(nodes=1, devices=3)
    for name in ("a", "x", "b", "y"):
        world.submit(name, milli=500, tier=STANDARD)
    world.later(7200)
    for name in ("c", "z"):
        world.submit(name, milli=500, tier=PREMIUM)  # they have just begun
    for name in "xyz":
        world.ends(name)
    world.submit("p", tier=PREMIUM)
    assert world.has("p") and made(world) == [("Resize", "a"), ("Start", "p")]


def test_a_device_of_a_node_is_vacated_for_several_together() -> None:
    world = World(nodes=2, devices=2)
    world.submit("first", tier=PREMIUM)
    world.submit("a", milli=500, tier=PREMIUM)
    world.submit("pair", 2, tier=PREMIUM)
    assert world.nodes_of("a") == world.nodes_of("first")
    world.ends("pair")
    world.submit("b", 2, tier=PREMIUM)
    world.ends("first")
    world.ends("b")
    world.submit("c", milli=600, tier=PREMIUM, may_move=False)
    world.scheduler.observed(world.now_s, "c", Grant(("n1",), (1,), 600, 0))
    world.decide()
    assert world.nodes_of("a") != world.nodes_of("c")
    world.submit("p", 2, tier=PREMIUM)
    assert world.has("p") == 2 and world.nodes_of("a") == world.nodes_of("c")


def test_of_spare_capacity_too_parts_give_way_to_who_ranks_before_them() -> None:
    world = World(nodes=1, devices=1)
    for name in "ab":
        world.submit(name, milli=500)
    world.later(20_000)
    world.submit("whole", priority=Priority.HIGH)
    assert world.has("whole") and not world.has("a")
    world.submit("part", milli=300, priority=Priority.HIGH)
    assert not world.has("part"), "no better than who runs"
    world.ends("whole")
    assert world.has("part") and world.has("a") + world.has("b") == 1
    world.later(200)
    world.submit("other", milli=600, priority=Priority.HIGH)
    assert world.has("other") and world.has("part")


def test_parts_are_freed_for_a_job_of_several_devices() -> None:
    world = World(nodes=1, devices=2)
    for name in "abcd":
        world.submit(name, milli=500)
    world.submit("p", 2, tier=PREMIUM)
    assert world.has("p") == 2 and not any(map(world.has, "abcd"))


def test_a_node_that_is_drained_keeps_its_promises_elsewhere() -> None:
    world = World(nodes=2, devices=1)
    world.submit("a", milli=500, tier=PREMIUM)
    (here,) = world.nodes_of("a")
    world.submit("spare", milli=600)
    world.scheduler.drain(here)
    world.decide()
    assert world.has("a") and world.nodes_of("a") != (here,) and not world.has("spare")


# What `packing.py` thinks out, by itself.


def part(name: str, place: int, milli: int) -> Job:
    job = Job(Ask(name, 1, milli=milli), PREMIUM, 0.0)
    job.spots, job.slot = [(place, 1)], 0
    return job


def packed(*devices: list[int]) -> dict[Key, list[Job]]:
    return {
        (place, 0): [part(f"{place}{n}", place, milli) for n, milli in enumerate(sizes)]
        for place, sizes in enumerate(devices)
    }


def test_a_large_part_moves_into_what_small_ones_have_left() -> None:
    parts = packed([500, 125], [500, 125], [500, 250])
    moves = hole(parts, 1000, lambda _: True)
    assert moves is not None and len(moves) == 3


devices = st.lists(st.sampled_from([500, 300, 250, 200, 125, 60, 31]), max_size=12)


@settings(deadline=None)
@given(st.lists(devices, min_size=1, max_size=5), st.sampled_from([1000, 500, 250, 125]))
def test_what_is_promised_can_always_be_packed(sizes: list[list[int]], milli: int) -> None:
    fitting = [[m for n, m in enumerate(some) if sum(some[: n + 1]) <= 1000] for some in sizes]
    parts = packed(*fitting)
    free = len(parts) - sum(stands_on(job.ask) for jobs in parts.values() for job in jobs)
    left = {key: 1000 - sum(job.ask.milli for job in jobs) for key, jobs in parts.items()}
    moves = hole(parts, milli, lambda _: True)
    if moves is None:
        assert free < milli / 1000 or max(left.values()) >= milli
        return
    at = {job: key for key, jobs in parts.items() for job in jobs}
    for job, key in moves:
        left[at[job]] += job.ask.milli
        left[key] -= job.ask.milli
        at[job] = key
        assert left[key] >= 0
    assert max(left.values()) >= milli
