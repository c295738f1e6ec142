"""Fair shares by weight: what each project's is, and that the scheduler gives it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midstep.policy.asks import Quota
from midstep.policy.projects.shares import Claim, chain, divide, fair_shares
from tests.policy.world import PREMIUM, World

amounts = st.floats(0, 100, allow_nan=False)
claims = st.lists(st.tuples(amounts, amounts, st.sampled_from([0.1, 1.0, 2.0, 7.5])), min_size=1, max_size=8)


@given(amounts, claims)
def test_nothing_is_left_that_somebody_wants(total: float, asked: list[tuple[float, float, float]]) -> None:
    many = [Claim(str(i), min(due, wants), wants, weight) for i, (due, wants, weight) in enumerate(asked)]
    shares = divide(total, many)
    bases = sum(claim.base for claim in many)
    assert sum(shares.values()) <= max(total, bases) + 1e-6
    short = [claim for claim in many if shares[claim.path] < claim.wants - 1e-6]
    if short:
        assert sum(shares.values()) >= total - 1e-6
    for claim in many:
        assert claim.base - 1e-6 <= shares[claim.path] <= claim.wants + 1e-6


@given(amounts, claims)
def test_who_lacks_some_has_as_much_for_its_weight_as_anybody(
    total: float, asked: list[tuple[float, float, float]]
) -> None:
    many = [Claim(str(i), min(due, wants), wants, weight) for i, (due, wants, weight) in enumerate(asked)]
    shares = divide(total, many)
    gained = {claim.path: (shares[claim.path] - claim.base) / claim.weight for claim in many}
    for claim in many:
        if shares[claim.path] < claim.wants - 1e-6:
            assert gained[claim.path] >= max(gained.values()) - 1e-6


def test_sub_projects_share_what_their_parent_has() -> None:
    quotas = {
        "a": Quota(0, weight=3),
        "b": Quota(0, weight=1),
        "a/x": Quota(2, weight=1),
        "a/y": Quota(0, weight=3),
    }
    wants = {"a": 30.0, "b": 30.0, "a/x": 15.0, "a/y": 15.0}
    found = fair_shares(16, quotas, wants, {})
    assert found == {"a": 12.0, "b": 4.0, "a/x": 4.5, "a/y": 7.5}
    assert fair_shares(16, quotas, {**wants, "a/y": 1.0}, {})["a/x"] == 11.0, "what one leaves, another has"
    assert fair_shares(16, quotas, {"b": 30.0}, {}) == {"b": 16.0}


def test_what_is_promised_is_not_shared() -> None:
    quotas = {"a": Quota(0), "b": Quota(4)}
    assert fair_shares(10, quotas, {"a": 20.0, "b": 20.0}, {"a": 4.0}) == {"a": 5.0, "b": 5.0}
    limited = {"a": Quota(0, limit=2), "b": Quota(0)}
    assert fair_shares(10, limited, {"a": 20.0, "b": 20.0}, {}) == {"a": 2.0, "b": 8.0}


def test_paths() -> None:
    assert chain("") == ("/",)
    assert chain("a/b") == ("a", "a/b", "a/b/")


def crowd(world: World, project: str, count: int = 12, devices: int = 1) -> None:
    for number in range(count):
        world.submit(f"{project}-{number}", devices, project=project, least=devices)


def used(world: World) -> dict[str, float]:
    world.scheduler.check()
    return {one.project: one.used for one in world.scheduler.usage()}


def test_what_nobody_is_due_goes_by_weight() -> None:
    world = World(devices=8, quotas={"a": Quota(0, weight=3), "b": Quota(0, weight=1)})
    crowd(world, "a")
    assert used(world)["a"] == 8, "it has what nobody else wants"
    crowd(world, "b")
    world.later(400)
    assert used(world) == {"a": 6, "b": 2}
    for number in range(12):
        world.ends(f"a-{number}")
    assert used(world)["b"] == 8


def test_dues_come_first() -> None:
    world = World(devices=8, quotas={"a": Quota(4), "b": Quota(0, weight=3), "c": Quota(0, weight=1)})
    crowd(world, "b")
    crowd(world, "c")
    world.later(400)
    assert (used(world)["b"], used(world)["c"]) == (6, 2)
    crowd(world, "a", 4)
    assert used(world)["a"] == 4, "at once"
    world.later(400)
    assert used(world) == {"a": 4, "b": 3, "c": 1}


def test_a_tree() -> None:
    quotas = {"a": Quota(0), "b": Quota(0), "a/x": Quota(0, weight=3), "a/y": Quota(0, weight=1)}
    world = World(nodes=2, devices=8, quotas=quotas)
    for project in ("b", "a/y", "a/x"):
        crowd(world, project, 20)
    world.later(600)
    assert used(world) == {"a": 8, "a/x": 6, "a/y": 2, "b": 8}


def test_projects_without_a_quota_have_the_weight_1() -> None:
    world = World(devices=8, quotas={"a": Quota(0, weight=2)})
    for project in ("a", "free", ""):
        crowd(world, project)
    world.later(600)
    assert used(world) == {"a": 4, "free": 2}, "jobs of no project are one together"


def test_elastic_jobs_shrink_to_their_share_and_stay_there() -> None:
    world = World(devices=8, quotas={"a": Quota(0), "b": Quota(0)})
    world.submit("a1", 8, project="a")
    world.later(200)
    world.submit("b1", 8, project="b")
    world.later(400)
    assert (world.has("a1"), world.has("b1")) == (4, 4)
    moves = 0
    for _ in range(20):
        world.later(60)
        moves += len(world.plan.actions)
    assert moves == 0 and (world.has("a1"), world.has("b1")) == (4, 4)


def test_a_promise_comes_before_any_share() -> None:
    world = World(devices=8, quotas={"a": Quota(8), "b": Quota(0, weight=100)})
    crowd(world, "b")
    world.submit("p", 4, PREMIUM, project="a")
    assert world.has("p") == 4


def test_a_quota_that_is_set_later_holds_for_jobs_that_are_there() -> None:
    world = World(devices=8)
    crowd(world, "a")
    crowd(world, "b")
    world.scheduler.quota("b", Quota(0, weight=3))
    world.later(600)
    assert used(world) == {"a": 2, "b": 6}
    world.scheduler.quota("b", None)
    world.later(60)
    assert all(job.borrowed == 0 for job in world.scheduler.jobs.values())
