"""What the scheduler does, rule by rule."""

from __future__ import annotations

import pytest

from midstep.model.tiers import Priority
from midstep.policy.asks import Ask, Grant, Quota
from tests.policy.world import BASIC, PREMIUM, STANDARD, World


def test_a_job_gets_all_it_asked_for_when_it_is_free() -> None:
    world = World()
    world.submit("a", 4)
    assert world.has("a") == 4
    assert world.why("a") == "devices were free"


def test_a_small_job_goes_where_the_least_is_left() -> None:
    world = World(nodes=2)
    world.submit("a", 6)
    world.submit("b", 2)
    assert world.nodes_of("a") == world.nodes_of("b")


def test_a_job_that_is_smaller_than_a_node_is_never_parted() -> None:
    world = World(nodes=2)
    world.submit("a", 5, PREMIUM)
    world.submit("b", 5, PREMIUM)
    world.submit("c", 5)
    assert len(world.nodes_of("c")) == 1
    assert world.has("c") == 3  # two ranks on two of them


def test_a_large_job_is_put_in_one_rack() -> None:
    world = World(nodes=0)
    for index in range(6):
        world.node(f"n{index}", rack=f"rack{index % 2}")
    world.submit("a", 24)
    assert world.nodes_of("a") in (("n0", "n2", "n4"), ("n1", "n3", "n5"))


def test_nothing_idles_while_a_job_could_use_it() -> None:
    world = World()
    world.submit("a", 6, PREMIUM)
    world.submit("b", 8)
    assert world.has("b") == 2
    assert world.scheduler.jobs["b"].sharing == 4


def test_a_job_that_cannot_shrink_waits_and_holds_back_nobody() -> None:
    world = World()
    world.submit("a", 6, PREMIUM)
    world.submit("b", 8, least=8)
    world.submit("c", 2)
    assert (world.has("b"), world.has("c")) == (0, 2)
    assert "waits for 8 devices" in world.why("b")


def test_a_shrunk_job_grows_back() -> None:
    world = World()
    world.submit("a", 6, PREMIUM)
    world.submit("b", 8)
    world.ends("a")
    assert world.has("b") == 8
    assert world.did("b") == ["resize"]
    assert "more became free" in world.why("b")


def test_premium_shrinks_basic_before_it_suspends_anybody() -> None:
    world = World()
    world.submit("a", 8)
    world.submit("p", 4, PREMIUM)
    assert (world.has("a"), world.has("p")) == (4, 4)
    assert world.did("a") == ["resize"]
    assert "gave way to p: its tier's guarantee" in world.why("a")


def test_premium_takes_from_basic_not_from_standard() -> None:
    world = World()
    world.submit("s", 4, STANDARD)
    world.submit("b", 4)
    world.submit("p", 4, PREMIUM)
    assert (world.has("s"), world.has("b"), world.has("p")) == (4, 0, 4)


def test_of_basic_jobs_the_one_that_has_had_most_gives_way() -> None:
    world = World()
    world.submit("old", 4)
    world.later(7200)
    world.submit("young", 4)
    world.later(300)
    world.submit("p", 4, PREMIUM)
    assert (world.has("old"), world.has("young")) == (0, 4)


def test_a_new_basic_job_displaces_one_that_has_had_much() -> None:
    world = World()
    world.submit("old", 8)
    world.later(7200)
    world.submit("new", 8)
    assert world.has("new") == 8
    assert world.did("old") == ["suspend"]
    assert "waits for 8 devices" in world.why("old")


def test_a_job_that_has_just_been_started_is_left_alone() -> None:
    world = World(settle_s=1000)
    world.submit("a", 8)
    world.later(900)
    world.submit("b", 8)
    assert world.has("a") == 8
    world.later(200)
    assert world.has("b") > 0


def test_of_equals_the_one_with_the_smallest_snapshot_gives_way() -> None:
    world = World(devices=2)
    world.submit("heavy", 1, snapshot_bytes=500_000_000_000)
    world.submit("light", 1, snapshot_bytes=1_000_000)
    world.later(600)
    world.submit("p", 1, PREMIUM)
    assert (world.has("heavy"), world.has("light")) == (1, 0)


def test_priority_orders_the_queue_within_a_tier() -> None:
    world = World(devices=1)
    world.submit("p", 1, PREMIUM)
    world.submit("low", 1, priority=Priority.LOW)
    world.submit("high", 1, priority=Priority.HIGH)
    assert world.scheduler.queue() == ["high", "low"]
    world.ends("p")
    assert (world.has("low"), world.has("high")) == (0, 1)


def test_standard_goes_before_basic_whatever_its_priority() -> None:
    world = World(devices=1)
    world.submit("b", 1, priority=Priority.HIGH)
    world.submit("s", 1, STANDARD, priority=Priority.LOW)
    assert (world.has("b"), world.has("s")) == (0, 1)


def test_a_guarantee_that_cannot_be_kept_is_not_given() -> None:
    world = World()
    assert world.submit("p", 6, PREMIUM).tier is PREMIUM
    refused = world.submit("q", 4, PREMIUM)
    assert refused.tier is None
    assert "cannot be guaranteed" in str(refused.why)
    assert "premium with 2 devices, or basic with 4" in str(refused.why)
    assert "q" not in world.scheduler.jobs
    assert world.submit("q", 4, PREMIUM, or_basic=True).tier is BASIC
    world.ends("p")
    assert world.submit("r", 4, PREMIUM).tier is PREMIUM


def test_would_changes_nothing() -> None:
    world = World()
    assert world.scheduler.would(Ask("x", 8, tier=PREMIUM)).tier is PREMIUM
    assert world.submit("p", 8, PREMIUM).tier is PREMIUM


def test_a_job_larger_than_anything_is_told_the_largest() -> None:
    world = World(nodes=2)
    admission = world.submit("a", 32, least=32)
    assert admission.tier is None
    assert "the largest that could ever run has 16" in str(admission.why)


def test_a_guarantee_does_not_stand_on_spot_nodes() -> None:
    world = World()
    world.node("spot", spot=True)
    assert world.submit("p", 8, PREMIUM).tier is PREMIUM
    assert world.submit("q", 8, PREMIUM).tier is None
    assert world.submit("r", 8, PREMIUM, spot_ok=True).tier is PREMIUM


def test_a_project_borrows_what_others_leave_and_gives_it_back() -> None:
    world = World(quotas={"a": Quota(4), "b": Quota(4)})
    world.submit("a1", 4, project="a")
    world.submit("a2", 4, project="a")
    assert world.has("a2") == 4
    world.later(200)
    world.submit("b1", 4, project="b")
    assert (world.has("a1"), world.has("a2"), world.has("b1")) == (4, 0, 4)
    assert "waits" in world.why("a2")


def test_what_is_borrowed_is_reclaimed_by_shrinking() -> None:
    world = World(quotas={"a": Quota(4), "b": Quota(4)})
    world.submit("a1", 8, project="a")
    world.later(200)
    world.submit("b1", 4, project="b")
    assert (world.has("a1"), world.has("b1")) == (4, 4)
    assert "its project had borrowed devices, which b needs back" in world.why("a1")


def test_quotas_are_hierarchical() -> None:
    world = World(quotas={"team": Quota(8), "team/x": Quota(2), "other": Quota(8)})
    world.submit("p", 4, PREMIUM, project="team/x")
    assert "p" not in world.scheduler.jobs
    assert world.submit("q", 2, PREMIUM, project="team/x").tier is PREMIUM
    usage = {item.project: item for item in world.scheduler.usage()}
    assert (usage["team"].used, usage["team/x"].promised) == (2, 2)


def test_a_limit_holds_even_when_devices_are_free() -> None:
    world = World(quotas={"a": Quota(2, limit=4)})
    world.submit("a1", 4, project="a", least=4)
    world.submit("a2", 4, project="a", least=4)
    assert world.has("a2") == 0
    assert world.why("a2") == "project a has its limit of 4 devices"


def test_small_jobs_move_together_to_make_room() -> None:
    world = World(nodes=2, devices=4)
    for name in ("a", "b", "c", "d", "e", "f"):
        world.submit(name, 1, PREMIUM)
    kept = [name for name in ("a", "b", "c", "d") if world.nodes_of(name) == ("n0",)]
    world.ends(kept[0])
    world.ends(kept[1])
    world.later(600)
    world.submit("big", 4, PREMIUM)
    assert world.has("big") == 4
    moved = [name for name in ("e", "f", *kept[2:]) if world.did(name) == ["resize"]]
    assert len(moved) == 2
    assert "moved to make room for big" in world.why(moved[0])


def test_who_has_just_begun_is_not_moved_for_others() -> None:
    """The pause would cost it more than its guarantee leaves it."""
    world = World(nodes=2, devices=4)
    for name in ("a", "b", "c", "d", "e", "f"):
        world.submit(name, 1, PREMIUM)
    world.ends("d")
    world.later(600)
    world.submit("_young", 1, PREMIUM)
    world.later(400)  # it has settled
    world.ends("b")
    world.ends("c")
    assert world.nodes_of("_young") == world.nodes_of("a") == ("n0",)
    world.submit("big", 3, PREMIUM)
    assert world.has("big") == 3
    assert world.did("_young") == [] and world.nodes_of("_young") == ("n0",) and world.did("a") == ["resize"]


def test_draining_moves_shrinks_and_at_last_suspends() -> None:
    world = World(nodes=2)
    world.submit("a", 4)
    world.submit("b", 4, PREMIUM)
    world.scheduler.drain("n0")
    world.decide()
    assert world.nodes_of("a") == world.nodes_of("b") == ("n1",)
    world.scheduler.drain("n1")
    world.decide()
    assert (world.has("a"), world.has("b")) == (0, 0)
    world.scheduler.uncordon("n0")
    world.decide()
    assert (world.has("a"), world.has("b")) == (4, 4)


def test_a_cordoned_node_gets_nothing_new() -> None:
    world = World(nodes=2)
    world.submit("a", 8)
    world.scheduler.cordon("n1")
    world.submit("b", 4, STANDARD)
    assert world.nodes_of("b") == ("n0",)
    world.scheduler.uncordon("n1")
    world.later(600)
    assert world.has("a") == 8


def test_a_node_that_leaves_has_its_jobs_placed_elsewhere() -> None:
    world = World(nodes=2)
    world.submit("a", 8, PREMIUM)
    (node,) = world.nodes_of("a")
    world.scheduler.node_left(world.now_s, node)
    world.decide()
    assert world.did("a") == ["suspend", "start"]
    assert world.has("a") == 8 and world.nodes_of("a") != (node,)
    world.node(node)
    world.submit("b", 8)
    assert world.nodes_of("b") == (node,)


def test_a_guarantee_goes_with_its_job_to_a_cluster_that_is_left() -> None:
    world = World()
    world.node("m0", cluster="d")
    world.submit("p", 8, PREMIUM)
    (node,) = world.nodes_of("p")
    world.scheduler.node_left(world.now_s, node)
    world.decide()
    assert world.has("p") == 8 and world.nodes_of("p") != (node,)
    assert world.submit("q", 1, PREMIUM).tier is None


def test_parts_of_devices_share_one() -> None:
    world = World(devices=2)
    world.submit("a", 1, milli=400)
    world.submit("b", 1, milli=600)
    world.submit("c", 1)
    grants = [world.scheduler.grant(name) for name in "abc"]
    assert all(grants)
    assert grants[0] and grants[1] and grants[0].slot == grants[1].slot >= 0
    world.ends("a")
    world.ends("b")
    world.submit("d", 1)
    assert world.has("d") == 1


def test_a_job_has_one_of_the_types_it_accepts() -> None:
    world = World()
    world.node("other", device_type="old")
    world.submit("a", 8, device_types=("old",))
    world.submit("b", 8, device_types=("old", "gpu"))
    assert (world.nodes_of("a"), world.nodes_of("b")) == (("other",), ("n0",))


def test_an_action_that_failed_is_observed() -> None:
    world = World(nodes=2)
    world.submit("a", 8)
    (node,) = world.nodes_of("a")
    world.scheduler.observed(world.now_s, "a", None)
    world.decide()
    assert world.has("a") == 8
    other = "n1" if node == "n0" else "n0"
    world.scheduler.observed(world.now_s, "a", Grant((other,), (8,)))
    world.decide()
    assert world.nodes_of("a") == (other,)


def test_waiting_jobs_spill_to_a_free_cluster_of_the_region() -> None:
    world = World()
    world.submit("a", 8, PREMIUM)
    world.submit("b", 8, data="r")
    assert world.has("b") == 0
    world.node("m0", cluster="d")
    world.decide()
    assert world.nodes_of("b") == ("m0",)


def test_they_spill_to_another_region_only_when_that_beats_waiting() -> None:
    world = World(spill_s=300)
    world.submit("a", 8, PREMIUM)
    world.submit("light", 8, snapshot_bytes=0)
    world.submit("pinned", 8, region="r")
    world.node("far", region="q", cluster="d")
    world.decide()
    assert (world.has("light"), world.has("pinned")) == (0, 0)
    world.later(400)
    world.submit("other", 1, region="q")
    world.ends("other")
    assert world.nodes_of("light") == ("far",)
    assert world.has("pinned") == 0


def test_a_region_that_is_cut_off_goes_on_alone() -> None:
    world = World()
    world.node("far", region="q", cluster="d")
    world.scheduler.reachable("q", False)
    world.submit("a", 8)
    assert world.nodes_of("a") == ("n0",)
    world.submit("b", 8, region="q", or_basic=True)
    assert "b" not in world.scheduler.jobs
    world.scheduler.reachable("q", True)
    world.submit("c", 8)
    assert world.nodes_of("c") == ("far",)


def test_a_job_goes_where_its_data_is() -> None:
    world = World()
    world.node("far", region="a-first-by-name", cluster="d")
    world.submit("a", 4, data="r", snapshot_bytes=1 << 30)
    assert world.nodes_of("a") == ("n0",)


def test_a_trial_on_a_copy_changes_nothing() -> None:
    world = World()
    world.submit("a", 8)
    world.later(600)
    trial = world.scheduler.copy()
    trial.submit(world.now_s, Ask("p", 8, tier=PREMIUM))
    plan = trial.decide(world.now_s)
    assert [action.job_id for action in plan.actions] == ["a", "p"]
    assert world.has("a") == 8 and "p" not in world.scheduler.jobs


def test_two_jobs_of_one_name_are_a_mistake() -> None:
    world = World()
    world.submit("a")
    with pytest.raises(ValueError, match="job a is there already"):
        world.submit("a")
    with pytest.raises(ValueError, match="node n0 is there already"):
        world.node("n0")
