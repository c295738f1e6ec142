"""What clusters of a region do for each other: nothing is free in one while somebody waits in another, and a
promise that one cannot keep is kept by another."""

from __future__ import annotations

from tests.policy.world import BASIC, PREMIUM, STANDARD, World


def test_who_is_suspended_in_one_cluster_goes_on_at_once_where_devices_are_free() -> None:
    world = World(nodes=0)
    world.node("new", cluster="c", device_type="new")
    world.node("old", cluster="d", device_type="old")
    world.submit("a", 8, device_types=("new", "old"))
    world.submit("b", 8, device_types=("new", "old"))
    old, new = ("a", "b") if world.nodes_of("a") == ("old",) else ("b", "a")
    world.ends(old)
    world.submit("p", 8, PREMIUM, device_types=("new",))
    assert world.nodes_of("p") == ("new",)
    assert world.nodes_of(new) == ("old",)  # in the same moment


def test_a_basic_job_is_taken_where_more_is_promised_than_is_left() -> None:
    world = World(nodes=2)
    world.submit("one", 8, PREMIUM)
    world.submit("two", 8, PREMIUM)
    world.scheduler.node_left(world.now_s, "n1")
    world.decide()
    assert world.submit("spare", 1).tier is BASIC
    assert world.has("spare") == 0 and world.has("one") + world.has("two") == 8


def test_a_promise_that_cannot_be_packed_is_kept_by_another_cluster() -> None:
    world = World(nodes=0)
    world.node("a0", 4, cluster="a")
    world.node("a1", 4, cluster="a")
    world.node("b0", 8, cluster="b")
    for name in ("three", "three too"):
        world.submit(name, 3, PREMIUM)
    world.submit("two", 2, STANDARD)  # two devices are left of those nodes, but not together
    assert world.nodes_of("two") == ("b0",) and world.has("two") == 2


def test_a_promise_is_not_sent_to_nodes_on_which_the_job_would_never_be_whole() -> None:
    world = World(nodes=0)
    world.node("a0", 4, cluster="a")
    world.node("a1", 4, cluster="a")
    for index in range(8):
        world.node(f"b{index}", 1, cluster="b")
    world.submit("one", 4, PREMIUM)
    world.submit("two", 4, PREMIUM)
    lost = world.nodes_of("two")[0]
    world.scheduler.node_left(world.now_s, lost)
    world.decide()
    assert world.has("two") == 0  # its ranks share files: they cannot be parted over the small nodes
    world.node(lost, 4, cluster="a")
    world.decide()
    assert world.has("two") == 4


def test_a_job_with_fewer_devices_than_promised_leaves_for_a_cluster_where_it_has_all() -> None:
    world = World(nodes=0)
    world.node("a0", 4, cluster="a")
    world.node("a1", 4, cluster="a")
    for name in ("three", "three too"):
        world.submit(name, 3, PREMIUM)
    world.submit("two", 2, STANDARD)
    assert world.has("two") == 1
    world.node("b0", 8, cluster="b")
    world.later(180)
    assert world.nodes_of("two") == ("b0",) and world.has("two") == 2


def test_what_moves_for_a_promise_is_as_little_as_will_do() -> None:
    world = World(nodes=2)
    for index in range(7):
        world.submit(f"small{index}", 1, PREMIUM)
    world.submit("spare", 1, BASIC)
    world.submit("pair", 2, PREMIUM)
    for index in range(3):
        world.submit(f"more{index}", 1, PREMIUM)
    world.submit("spare too", 1, BASIC)
    (full,), (other,) = world.nodes_of("small0"), world.nodes_of("pair")
    assert full == world.nodes_of("spare")[0] != other == world.nodes_of("spare too")[0]
    # Two devices are free and one is spare where it fits: one more has to move, to the spare one elsewhere.
    world.submit("four", 4, STANDARD)
    assert world.has("four") == 4 and world.nodes_of("four") == (other,)
    assert world.nodes_of("pair") == (other,)
