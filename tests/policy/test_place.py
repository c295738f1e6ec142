"""Placements: what any must be, and which is chosen."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from midstep.model.fleet import Device, Node
from midstep.model.job import JobSpec, Placement
from midstep.model.tiers import Tier
from midstep.policy.picture import Picture, Plan, Want
from midstep.policy.place import hopeless, plan
from midstep.policy.reasons import (
    CannotMove,
    CannotRestore,
    NoCapacity,
    NodeDown,
    NoNodes,
    NoRoomForHome,
    NoSuchDeviceType,
    NoSuchPlace,
    TooLarge,
)


def node(
    name: str, devices: int = 2, region: str = "east", kind: str = "cpu", in_place: bool = False
) -> Node:
    made = tuple(Device(i, kind, (2 * i, 2 * i + 1)) for i in range(devices))
    return Node(name, region, name, made, freezes_in_place=in_place)


def want(job_id: str = "j", devices: int = 1, ranks: int | None = None, **fields: object) -> Want:
    spec_fields = {k: fields.pop(k) for k in ("tier", "device_type") if k in fields}
    spec = JobSpec(("x",), ranks or devices, devices, **spec_fields)  # type: ignore[arg-type]
    return Want(job_id, spec, **{"queued_s": 0.0, **fields})  # type: ignore[arg-type]


def only(answer: Plan) -> Placement:
    assert len(answer.starts) == 1, answer.waits
    return answer.starts[0].placement


def where(placement: Placement) -> list[tuple[str, list[tuple[int, tuple[int, ...]]]]]:
    return [(p.node, [(r.rank, r.devices) for r in p.ranks]) for p in placement.nodes]


def test_the_fullest_node_that_fits_is_chosen() -> None:
    picture = Picture((node("a", 4), node("b", 4)), used={("b", 0): "other", ("b", 1): "other"})
    assert where(only(plan(picture, [want(devices=2)]))) == [("b", [(0, (2,)), (1, (3,))])]


def test_as_few_nodes_as_possible() -> None:
    picture = Picture((node("a"), node("b", 4), node("c")))
    placed = only(plan(picture, [want(devices=6)]))
    assert [p.node for p in placed.nodes] == ["b", "a"]
    assert placed.node_of(0) == placed.nodes[0].node


def test_ranks_share_devices_evenly() -> None:
    placed = only(plan(Picture((node("a"),)), [want(devices=2, ranks=5)]))
    assert where(placed) == [("a", [(0, (0,)), (1, (0,)), (2, (0,)), (3, (1,)), (4, (1,))])]
    assert [r.cpus for r in placed.nodes[0].ranks] == [(0, 1)] * 3 + [(2, 3)] * 2


def test_a_rank_can_have_several_devices() -> None:
    placed = only(plan(Picture((node("a", 3), node("b", 2))), [want(devices=4, ranks=2)]))
    assert where(placed) == [("a", [(0, (0, 1))]), ("b", [(1, (0, 1))])]


def test_virtual_hosts_are_the_nodes_of_the_first_placement() -> None:
    placed = only(plan(Picture((node("a"), node("b"))), [want(devices=4)]))
    ranks = [(r.home, r.local_rank, r.local_world_size) for p in placed.nodes for r in p.ranks]
    assert ranks == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]


def test_virtual_hosts_stay_what_they_are_on_one_node() -> None:
    placed = only(plan(Picture((node("big", 4),)), [want(devices=4, homes=((0, 1), (2, 3)))]))
    ranks = [(r.rank, r.home, r.local_rank, r.local_world_size) for r in placed.nodes[0].ranks]
    assert ranks == [(0, 0, 0, 2), (1, 0, 1, 2), (2, 1, 0, 2), (3, 1, 1, 2)]


def test_ranks_that_share_files_are_never_parted() -> None:
    picture = Picture((node("a", 1), node("b", 1)))
    answer = plan(picture, [want(devices=2, homes=((0, 1),))])
    assert answer.waits[0].reason == NoRoomForHome(2, 1)


def test_rank_zero_leads_wherever_it_goes() -> None:
    picture = Picture((node("a", 1), node("b", 2)))
    placed = only(plan(picture, [want(devices=3, homes=((0, 1), (2,)))]))
    assert where(placed) == [("b", [(0, (0,)), (1, (1,))]), ("a", [(2, (0,))])]


def test_a_job_keeps_to_its_region_and_prefers_the_one_of_its_snapshot() -> None:
    picture = Picture((node("a", 1), node("w1", 1, "west"), node("w2", 1, "west")))
    placed = only(plan(picture, [want(devices=2)]))
    assert placed.region == "west"
    assert only(plan(picture, [want(devices=1, near="west")])).region == "west"
    assert isinstance(plan(picture, [want(devices=3)]).waits[0].reason, TooLarge)


def test_its_own_devices_count_as_free_for_a_migration() -> None:
    picture = Picture((node("a"), node("b")), used={("a", 0): "j", ("b", 0): "j"})
    placed = only(plan(picture, [want(devices=2, homes=((0,), (1,)), node="a", restores=True)]))
    assert where(placed) == [("a", [(0, (0,)), (1, (1,))])]


def test_the_queue_goes_by_tier_then_time_and_small_jobs_pass() -> None:
    wants = [
        want("basic", 1, tier=Tier.BASIC, queued_s=1),
        want("late", 1, queued_s=3),
        want("early", 1, queued_s=2),
        want("large", 9, tier=Tier.PREMIUM, queued_s=9),
        want("premium", 1, tier=Tier.PREMIUM, queued_s=10),
    ]
    answer = plan(Picture((node("a", 3),)), wants)
    assert [s.job_id for s in answer.starts] == ["premium", "early", "late"]
    assert [w.job_id for w in answer.waits] == ["large", "basic"]


def test_nodes_that_failed_are_used_only_when_there_is_no_other() -> None:
    picture = Picture((node("a", 1), node("b", 1)))
    assert where(only(plan(picture, [want(avoid=("a",))])))[0][0] == "b"
    assert where(only(plan(Picture((node("a", 1),)), [want(avoid=("a",))])))[0][0] == "a"


def test_a_frozen_job_gets_the_devices_it_stands_on_or_none() -> None:
    nodes = (node("a", 2, in_place=True), node("b"))
    pinned = only(plan(Picture((nodes[0],)), [want()]))
    assert only(plan(Picture(nodes), [want(pinned=pinned)])) == pinned
    taken = Picture(nodes, used={("a", 0): "other"})
    assert "where it stands frozen" in str(plan(taken, [want(pinned=pinned)]).waits[0].reason)
    assert plan(Picture((nodes[1],), down=(nodes[0],)), [want(pinned=pinned)]).waits[0].reason == NodeDown(
        "a"
    )


def test_reasons() -> None:
    picture = Picture((node("a"), node("f", 2, in_place=True)), used={("a", 0): "x"}, down=(node("d"),))
    cases = [
        (want(devices=4, node="a"), TooLarge(4, 2, "a")),
        (want(devices=2, node="a"), NoCapacity(2, 1, 1, "a")),
        (want(device_type="gpu"), NoSuchDeviceType("gpu", ("cpu",))),
        (want(node="z"), NoSuchPlace("z", ("a", "d", "f"))),
        (want(region="north"), NoSuchPlace("north", ("east",))),
        (want(node="d"), NodeDown("d")),
        (want(node="f", restores=True), CannotRestore(("f",))),
    ]
    for wanted, reason in cases:
        assert plan(picture, [wanted]).waits[0].reason == reason
    assert plan(Picture((), down=(node("d"),)), [want()]).waits[0].reason == NoNodes()


def test_what_is_hopeless_is_known_at_once() -> None:
    picture = Picture((node("a"),), used={("a", 0): "x"}, down=(node("b"),))
    assert hopeless(picture, want(devices=4)) is None
    assert hopeless(picture, want(devices=5)) == TooLarge(5, 4)
    assert hopeless(Picture(()), want(devices=5)) is None


def test_eight_ranks_on_three_devices() -> None:
    placed = only(plan(Picture((node("a", 8),)), [want(devices=3, ranks=8)]))
    assert [r.devices for r in placed.nodes[0].ranks] == [(0,)] * 3 + [(1,)] * 3 + [(2,)] * 2


def test_a_job_that_starts_small_can_grow() -> None:
    """Its virtual hosts are those that it would have with a device a rank."""
    cases = [
        ((4, 4), 1, 4, [4]),
        ((2, 2), 1, 4, [2, 2]),
        ((4, 2, 2), 3, 8, [4, 2, 2]),
        ((2, 2), 2, 8, [4, 4]),  # the region has no more: more virtual hosts would be of no use
        ((1, 1, 1), 2, 5, [2, 2, 1]),
    ]
    for devices, asked, ranks, sizes in cases:
        nodes = tuple(node(f"n{i}", count) for i, count in enumerate(devices))
        placed = only(plan(Picture(nodes), [want(devices=asked, ranks=ranks)]))
        homes: dict[int, int] = {r.home: r.local_world_size for p in placed.nodes for r in p.ranks}
        assert [homes[home] for home in sorted(homes)] == sizes, devices
        assert placed.devices == asked


def resized(nodes: tuple[Node, ...], before: Placement, devices: int, **more: object) -> Plan:
    """What becomes of a placement when its job is to have another number of devices."""
    homes: dict[int, list[int]] = {}
    for rank in sorted((r for p in before.nodes for r in p.ranks), key=lambda rank: rank.rank):
        homes.setdefault(rank.home, []).append(rank.rank)
    used = {(p.node, i): "j" for p in before.nodes for r in p.ranks for i in r.devices}
    used.update(more.pop("used", {}))  # type: ignore[call-overload]
    ranks = sum(map(len, homes.values()))
    wanted = want(
        devices=devices,
        ranks=ranks,
        homes=tuple(tuple(h) for _, h in sorted(homes.items())),
        at=before,
        **more,
    )
    return plan(Picture(nodes, used=used), [wanted])


def test_a_job_shrinks_and_grows_where_it_is() -> None:
    nodes = (node("a"), node("b"), node("c"))
    before = only(plan(Picture(nodes), [want(devices=4)]))
    for devices, places in [
        (3, [("a", [(0, (0,)), (1, (1,))]), ("b", [(2, (0,)), (3, (0,))])]),
        (2, [("a", [(0, (0,)), (1, (0,))]), ("b", [(2, (0,)), (3, (0,))])]),
        (1, [("a", [(rank, (0,)) for rank in range(4)])]),
    ]:
        assert where(only(resized(nodes, before, devices))) == places
    small = only(resized(nodes, before, 1))
    assert only(resized(nodes, small, 4)).homes_by_node() in ({0: "a", 1: "b"}, {0: "a", 1: "c"})


def test_a_job_keeps_its_devices_while_it_shrinks() -> None:
    nodes = (node("a", 4),)
    before = only(plan(Picture(nodes, used={("a", 0): "x", ("a", 1): "x"}), [want(devices=2)]))
    assert where(only(resized(nodes, before, 1))) == [("a", [(0, (2,)), (1, (2,))])]


def test_why_a_job_is_not_resized() -> None:
    nodes = (node("a"), node("b"))
    before = only(plan(Picture(nodes), [want(devices=2, ranks=4)]))
    taken = {("a", 1): "x", ("b", 1): "x"}
    assert resized(nodes, before, 3, used=taken).waits[0].reason == NoCapacity(3, 2, 1)
    alone = only(plan(Picture(nodes[:1]), [want(devices=1, ranks=4)]))
    assert resized(nodes, alone, 3).waits[0].reason == NoRoomForHome(3, 2)
    apart = only(plan(Picture(nodes), [want(devices=4)]))
    assert resized(nodes, apart, 1, still=True).waits[0].reason == CannotMove(1, ("a", "b"))
    assert resized(nodes, apart, 2, still=True).starts


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(SIZES, st.lists(st.integers(0, 3), min_size=1, max_size=4), st.data())
def test_every_size_that_there_is_room_for_is_found(
    homes: list[int], rooms: list[int], data: st.DataObject
) -> None:
    """Against all ways of laying virtual hosts on nodes: any that gives each device a rank will do, and the
    busiest device is no busier than it must be."""
    ranks = iter(range(sum(homes)))
    members = tuple(tuple(next(ranks) for _ in range(size)) for size in homes)
    devices = data.draw(st.integers(1, sum(homes)))
    nodes = tuple(node(f"n{i}", count) for i, count in enumerate(rooms))
    answer = plan(Picture(nodes), [want(devices=devices, ranks=sum(homes), homes=members)])
    best = min(loads(homes, rooms, devices), default=None)
    assert (best is None) == (not answer.starts)
    if answer.starts:
        placed = answer.starts[0].placement
        counts: dict[tuple[str, int], int] = {}
        for place in placed.nodes:
            for rank in place.ranks:
                counts[place.node, rank.devices[0]] = counts.get((place.node, rank.devices[0]), 0) + 1
        assert len(counts) == devices and max(counts.values()) == best
        assert len(placed.homes_by_node()) == len(homes)


def loads(homes: list[int], rooms: list[int], devices: int) -> list[int]:
    """Ranks on the busiest device, for every way in which the virtual hosts can lie."""
    found: list[int] = []
    for choice in itertools.product(range(len(rooms)), repeat=len(homes)):
        on = {n: sum(s for s, c in zip(homes, choice) if c == n) for n in set(choice)}
        for load in range(1, sum(homes) + 1):
            least = {n: -(-count // load) for n, count in on.items()}
            most = sum(min(rooms[n], count) for n, count in on.items())
            if all(least[n] <= rooms[n] for n in on) and sum(least.values()) <= devices <= most:
                found.append(load)
                break
    return found


NODES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["east", "west"]), st.sampled_from(["cpu", "gpu"])),
    min_size=1,
    max_size=5,
).map(lambda rows: tuple(node(f"n{i}", n, region, kind) for i, (n, region, kind) in enumerate(rows)))
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda s: s[0] <= s[1] or s[0] % s[1] == 0)
WANTS = st.lists(SHAPES, min_size=1, max_size=6).map(
    lambda shapes: [
        want(f"j{i}", devices, ranks, queued_s=float(i)) for i, (devices, ranks) in enumerate(shapes)
    ]
)


@given(NODES, WANTS)
def test_every_plan_is_sound(nodes: tuple[Node, ...], wants: list[Want]) -> None:
    picture = Picture(nodes)
    answer = plan(picture, wants)
    assert sorted([s.job_id for s in answer.starts] + [w.job_id for w in answer.waits]) == [
        w.job_id for w in wants
    ]
    assert plan(picture, list(reversed(wants))) == answer, "the order of the input does not matter"
    by_name = {n.name: n for n in nodes}
    specs = {w.job_id: w.spec for w in wants}
    taken: set[tuple[str, int]] = set()
    for start in answer.starts:
        spec, placement = specs[start.job_id], start.placement
        pairs = {(p.node, i) for p in placement.nodes for r in p.ranks for i in r.devices}
        assert len(pairs) == spec.devices and not pairs & taken
        taken |= pairs
        assert sorted(r.rank for p in placement.nodes for r in p.ranks) == list(range(spec.world_size))
        assert {by_name[p.node].region for p in placement.nodes} == {placement.region}
        assert len({by_name[n].devices[i].device_type for n, i in pairs}) == 1
        assert placement.nodes[0].ranks[0].rank == 0
        loads = [
            sum(i in r.devices and p.node == n for p in placement.nodes for r in p.ranks) for n, i in pairs
        ]
        if len(placement.nodes) == 1:  # over several, virtual hosts can be in the way
            assert max(loads) - min(loads) <= 1


@given(NODES, WANTS, NODES)
def test_a_later_placement_keeps_every_virtual_host_together(
    nodes: tuple[Node, ...], wants: list[Want], others: tuple[Node, ...]
) -> None:
    for start in plan(Picture(nodes), wants[:1]).starts:
        homes: dict[int, list[int]] = {}
        before = {r.rank: r for p in start.placement.nodes for r in p.ranks}
        for rank, place in sorted(before.items()):
            homes.setdefault(place.home, []).append(rank)
        again = want(
            "j0",
            wants[0].spec.devices,
            wants[0].spec.world_size,
            homes=tuple(tuple(h) for _, h in sorted(homes.items())),
        )
        for later in plan(Picture(others), [again]).starts:
            after = {r.rank: (p.node, r) for p in later.placement.nodes for r in p.ranks}
            for rank, (_, place) in after.items():
                old = before[rank]
                assert (place.home, place.local_rank, place.local_world_size) == (
                    old.home,
                    old.local_rank,
                    old.local_world_size,
                )
            for members in homes.values():
                assert len({after[rank][0] for rank in members}) == 1
