"""Jobs that take a part of a device: which one they get, and that nothing is given beyond 1."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from midstep.model.fleet import Device, Node
from midstep.model.job import JobSpec, Placement
from midstep.policy.asks import Ask, Grant, stands_on
from midstep.policy.picture import Picture, Want
from midstep.policy.place import plan
from midstep.policy.plan import Start
from midstep.policy.reasons import NoPart
from tests.policy.world import BASIC, PREMIUM, World


def node(name: str, devices: int = 2, kind: str = "cpu", region: str = "east") -> Node:
    return Node(name, region, name, tuple(Device(i, kind, (i,)) for i in range(devices)))


def want(job_id: str, milli: int = 500, **fields: object) -> Want:
    return Want(job_id, JobSpec(("x",), milli=milli), **{"queued_s": 0.0, **fields})  # type: ignore[arg-type]


def where(placement: Placement) -> tuple[str, int]:
    return placement.nodes[0].node, placement.nodes[0].ranks[0].devices[0]


def placed(picture: Picture, *wants: Want) -> list[tuple[str, int]]:
    return [where(start.placement) for start in plan(picture, wants).starts]


def test_two_halves_share_a_device_and_the_third_gets_another() -> None:
    found = placed(Picture((node("a"), node("b"))), want("1"), want("2"), want("3"))
    assert found == [("a", 0), ("a", 0), ("a", 1)]


def test_where_least_is_left() -> None:
    shared = {("a", 0): {"x": 300}, ("b", 1): {"y": 600}, ("b", 0): {"z": 900}}
    assert placed(Picture((node("a"), node("b")), shared=shared), want("1", 400)) == [("b", 1)]
    assert placed(Picture((node("a"), node("b")), shared=shared), want("1", 500)) == [("a", 0)]


def test_a_new_one_comes_from_the_node_that_is_left_fullest() -> None:
    picture = Picture((node("a", 4), node("b", 4)), used={("b", 0): "x", ("b", 1): "x"})
    assert placed(picture, want("1")) == [("b", 2)]


def test_whole_devices_are_not_shared_ones() -> None:
    picture = Picture((node("a"),), shared={("a", 0): {"x": 10}})
    whole = Want("w", JobSpec(("x",)), 0.0)
    assert placed(picture, whole) == [("a", 1)]
    assert placed(Picture((node("a", 1),), used={("a", 0): "w"}), want("1")) == []
    assert plan(picture, [Want("w", JobSpec(("x",), 2, 2), 0.0)]).starts == ()


def test_devices_with_a_memory_of_their_own_are_not_shared() -> None:
    gpus = Picture((node("a", kind="nvidia-h200"),))
    assert plan(gpus, [want("1")]).starts == ()
    assert placed(Picture((*gpus.nodes, node("b"))), want("1")) == [("b", 0)]


def test_why_it_waits() -> None:
    picture = Picture((node("a", 1), node("b", 1)), shared={("a", 0): {"x": 700}, ("b", 0): {"y": 800}})
    (wait,) = plan(picture, [want("1")]).waits
    assert wait.reason == NoPart(500, 300)
    assert str(wait.reason) == "waits for 0.5 of a device: at most 0.3 is free"


def test_beside_whom() -> None:
    picture = Picture((node("a", 3),), shared={("a", 0): {"x": 400}, ("a", 1): {"y": 500}})
    assert placed(picture, want("1", beside=(("a", 0),))) == [("a", 0)]
    assert placed(picture, want("1", beside=())) == [("a", 2)], "nobody"
    assert placed(picture, want("1", 700, beside=(("a", 0),))) == [], "somebody there has yet to leave"


def test_what_a_frozen_job_stood_on_may_be_shared_by_then() -> None:
    (start,) = plan(Picture((node("a"),)), [want("1")]).starts
    for others, fits in (({"x": 500}, True), ({"x": 501}, False)):
        picture = Picture((node("a"),), shared={("a", 0): others})
        assert bool(plan(picture, [want("1", pinned=start.placement)]).starts) == fits


SIZES = st.lists(st.sampled_from([1000, 900, 600, 500, 400, 300, 250, 100]), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 3))
def test_no_device_beyond_one_and_nothing_idles(sizes: list[int], nodes: int) -> None:
    wants = [
        Want(str(number), JobSpec(("x",), milli=milli), float(number)) for number, milli in enumerate(sizes)
    ]
    answer = plan(Picture(tuple(node(f"n{i}") for i in range(nodes))), wants)
    given: dict[tuple[str, int], int] = {}
    for start in answer.starts:
        key = where(start.placement)
        given[key] = given.get(key, 0) + sizes[int(start.job_id)]
    assert max(given.values()) <= 1000
    free = [1000 - given.get((f"n{i}", d), 0) for i in range(nodes) for d in range(2)]
    assert all(sizes[int(wait.job_id)] > max(free) for wait in answer.waits)


# The scheduler, which counts shared devices without knowing which they are.


def slot(world: World, name: str) -> tuple[str, int]:
    grant = world.scheduler.grant(name)
    assert grant is not None
    return grant.nodes[0], grant.slot


def test_the_scheduler_packs_them() -> None:
    world = World(nodes=1, devices=2)
    for name in ("a", "b"):
        world.submit(name, milli=500)
    assert slot(world, "a") == slot(world, "b")
    world.submit("whole")
    assert world.has("whole") == 1, "nothing idles"
    world.submit("c", milli=500)
    assert not world.has("c") and world.scheduler.queue() == ["c"]
    world.ends("a")
    assert slot(world, "c") == slot(world, "b")


def test_a_promise_for_a_part_counts_as_the_next_power_of_two() -> None:
    sizes = (1000, 600, 500, 300, 250, 200, 126, 125, 10)
    assert [stands_on(Ask("", 1, milli=milli)) for milli in sizes] == [
        *(1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 1 / 64)
    ]
    assert stands_on(Ask("", 8)) == 8


def test_promises_for_parts_are_admitted_where_they_can_be_packed() -> None:
    world = World(nodes=1, devices=2)
    assert world.submit("a", milli=600, tier=PREMIUM).tier is PREMIUM
    assert world.submit("b", milli=600, tier=PREMIUM).tier is PREMIUM
    assert world.submit("c", milli=600, tier=PREMIUM).tier is None, "it would never run beside the others"
    world.ends("a")
    assert world.submit("d", milli=400, tier=PREMIUM).tier is PREMIUM
    assert world.submit("e", milli=500, tier=PREMIUM).tier is PREMIUM
    assert world.submit("f", milli=100, tier=PREMIUM).tier is None
    assert world.submit("g", milli=100, tier=BASIC).tier is BASIC
    assert all(map(world.has, "bdeg"))


@given(st.lists(st.sampled_from([1000, 900, 600, 500, 400, 300, 250, 200, 100]), max_size=16))
@example([1000, 1000, 500, 300, 300, 300, 500])
@example([500, 500, 300, 300, 200, 200, 200, 200])
def test_what_is_promised_runs(sizes: list[int]) -> None:
    world = World(nodes=2, devices=2)
    names = [str(number) for number in range(len(sizes))]
    tiers = [world.submit(name, milli=milli, tier=PREMIUM).tier for name, milli in zip(names, sizes)]
    promised = [name for name, tier in zip(names, tiers) if tier is PREMIUM]
    world.later(300)
    assert [name for name in promised if not world.has(name)] == []


def test_what_runs_already_is_adopted_where_it_is() -> None:
    world = World(nodes=1, devices=2)
    world.scheduler.cordon("n0")
    for name, milli in (("a", 500), ("b", 500), ("c", 600)):
        world.submit(name, milli=milli, tier=BASIC)
    for name, milli, number in (("a", 500, 0), ("b", 500, 0), ("c", 600, 1)):
        world.scheduler.observed(0.0, name, Grant(("n0",), (1,), milli, number))
    world.scheduler.uncordon("n0")
    assert not [action for action in world.decide().actions if isinstance(action, Start)]
    assert slot(world, "a") == slot(world, "b") != slot(world, "c")
    world.submit("d", milli=400)
    assert slot(world, "d") == slot(world, "c")


def test_who_is_there_by_the_books_alone_gives_way_to_who_really_is() -> None:
    world = World(nodes=1, devices=1)
    world.submit("a", milli=600)
    world.scheduler.cordon("n0")
    world.submit("b", milli=600)
    world.scheduler.observed(0.0, "b", Grant(("n0",), (1,), 600, 0))
    world.decide()
    assert world.has("b") and not world.has("a")


def test_a_drained_node_is_left() -> None:
    world = World(nodes=2, devices=1)
    for name in ("a", "b"):
        world.submit(name, milli=500)
    (here,) = world.nodes_of("a")
    world.scheduler.drain(here)
    world.decide()
    assert world.nodes_of("a") == world.nodes_of("b") != (here,)
    assert slot(world, "a") == slot(world, "b")
