"""Each rival on a case small enough to be followed by hand."""

from __future__ import annotations

import pytest

from midstep.model.tiers import Tier
from midstep.sim.catalogue import POLICIES, prepare
from midstep.sim.errors import FleetError, UnknownName
from midstep.sim.fleet import Fleet, alike
from tests.sim.build import fleet, job, of, replay, spans, trace


def test_fifo_is_strict() -> None:
    """The one device that is free stays so: the large job is first."""
    jobs = [job("a", 0, 100, 7), job("large", 1, 10, 8), job("small", 2, 10, 1)]
    assert spans(replay(fleet(1), jobs, "fifo")) == {"a": (0, 100), "large": (100, 110), "small": (110, 120)}


def test_sjf_goes_by_duration() -> None:
    jobs = [job("a", 0, 100, 8), job("long", 1, 50, 8), job("short", 2, 10, 8)]
    assert spans(replay(fleet(1), jobs, "sjf")) == {"a": (0, 100), "short": (100, 110), "long": (110, 160)}


def test_srtf_preempts_for_a_price() -> None:
    outcome = replay(fleet(1), [job("long", 0, 100, 8), job("short", 40, 10, 8)], "srtf")
    # A job of 8 pays 30 s for being stopped, and every job gives its devices back a second late.
    assert spans(outcome) == {"short": (40, 51), "long": (0, 51 + 60 + 30 + 1)}
    assert of(outcome, "long").stops == 1


def test_las_favours_those_that_had_little() -> None:
    """800 device seconds a hundred seconds: after 407 s the first has had its 3250 and goes second."""
    outcome = replay(fleet(1), [job("a", 0, 1000, 8), job("b", 100, 200, 8)], "las")
    assert spans(outcome)["b"] == (407, 607)
    assert of(outcome, "a").stops == 1 and of(outcome, "a").end_s == 1000 + 200 + 30


def test_easy_fills_holes_but_does_not_delay_the_first() -> None:
    jobs = [
        job("a", 0, 100, 6, estimate_s=100),
        job("first", 1, 50, 8, estimate_s=50),
        job("fits", 2, 90, 2, estimate_s=90),
        job("too-long", 3, 90, 2, estimate_s=120),
    ]
    outcome = spans(replay(fleet(1), jobs, "easy"))
    assert outcome["fits"] == (2, 92) and outcome["first"] == (100, 150)
    assert outcome["too-long"] == (150, 240)


def test_easy_lets_a_long_one_run_beside_the_first() -> None:
    jobs = [
        job("a", 0, 100, 8, estimate_s=100),
        job("b", 0, 500, 4, estimate_s=500),
        job("first", 1, 50, 9, estimate_s=50),
        job("beside", 2, 900, 3, estimate_s=900),
    ]
    outcome = spans(replay(fleet(2), jobs, "easy"))
    assert outcome["beside"][0] == 2 and outcome["first"][0] == 100


def test_restart_takes_back_what_was_lent_and_loses_work() -> None:
    """x and y ask for as much over all. y may have everything until x wants its half."""
    jobs = [
        job("y1", 0, 10_000, 4, group="y"),
        job("y2", 1, 10_000, 4, group="y"),
        job("x1", 5000, 20_000, 4, group="x"),
    ]
    outcome = replay(fleet(1), jobs, "restart")
    assert of(outcome, "x1").first_s == 5000 and of(outcome, "y1").stops == 0
    y2 = of(outcome, "y2")
    # It had run 4999 s, and its checkpoint was of the first hour; it gets y1's devices.
    assert y2.stops == 1 and y2.end_s == 10_000 + 60 + (10_000 - 3600)
    assert y2.lost_device_s == 4 * (4999 - 3600 + 60)


def test_restart_prefers_higher_tiers_of_a_group() -> None:
    jobs = [job("low", 0, 5000, 8, tier=Tier.BASIC), job("high", 100, 100, 8, tier=Tier.PREMIUM)]
    outcome = replay(fleet(1), jobs, "restart")
    assert spans(outcome)["high"] == (100, 200) and of(outcome, "low").stops == 1


def test_static_partitions_lend_nothing() -> None:
    on = Fleet(tuple(alike("a", 2, 8)), groups={"a": {"x": 1, "y": 1}})
    jobs = [job("x1", 0, 100, 8, group="x"), job("x2", 0, 100, 8, group="x"), job("y1", 0, 10, 8, group="y")]
    assert spans(replay(on, jobs, "static")) == {"x1": (0, 100), "x2": (100, 200), "y1": (0, 10)}


def test_static_partitions_go_by_what_is_asked_for() -> None:
    jobs = [job("x1", 0, 300, 24, group="x"), job("y1", 0, 300, 8, group="y")]
    assert spans(replay(fleet(4), jobs, "static")) == {"x1": (0, 300), "y1": (0, 300)}


def test_a_group_without_nodes_is_told_so() -> None:
    on = Fleet(tuple(alike("a", 1, 8)), groups={"a": {"x": 1}})
    outcome = replay(on, [job("x", 0, 1, group="x"), job("z", 0, 1, group="z")], "static")
    assert of(outcome, "z").refused == "its group 'z' has no nodes"


def test_more_nodes_in_groups_than_there_are() -> None:
    on = Fleet(tuple(alike("a", 1, 8)), groups={"a": {"x": 2}})
    with pytest.raises(FleetError, match="its groups have 2 nodes; there are 1"):
        prepare(on, trace(job("x", 0, 1, group="x")), "static")


@pytest.mark.parametrize("placement", ["consolidate", "best-fit"])
def test_a_job_larger_than_its_cluster_is_said(placement: str) -> None:
    outcome = replay(fleet(2), [job("huge", 0, 10, 17), job("fits", 0, 10, 16)], "fifo", placement)
    assert "asks for 17 devices" in of(outcome, "huge").refused and "16" in of(outcome, "huge").refused
    assert not of(outcome, "fits").refused and of(outcome, "fits").end_s == 10


@pytest.mark.parametrize("policy", [name for name, entry in POLICIES.items() if not entry.whole_fleet])
@pytest.mark.parametrize("placement", ["consolidate", "best-fit"])
def test_a_job_without_devices_runs(policy: str, placement: str) -> None:
    jobs = [job("none", 0, 10, 0), job("one", 5, 10, 1)]
    outcome = spans(replay(fleet(1), jobs, policy, placement))
    assert outcome["none"][0] == 0 and 10 <= outcome["none"][1] <= 11 and outcome["one"][0] == 5


def test_queue_goes_by_tier_and_holds_nobody_back() -> None:
    jobs = [
        job("a", 0, 100, 12),
        job("basic", 1, 50, 4, tier=Tier.BASIC),
        job("large", 2, 50, 14, tier=Tier.PREMIUM),
        job("premium", 3, 50, 4, tier=Tier.PREMIUM),
        job("late", 60, 10, 4, tier=Tier.BASIC),
    ]
    outcome = spans(replay(fleet(2), jobs, "queue"))
    assert outcome["basic"] == (1, 51) and outcome["premium"] == (51, 101)
    assert outcome["late"] == (100, 110) and outcome["large"] == (110, 160)


def test_queue_takes_devices_of_one_of_the_types_that_will_do() -> None:
    on = Fleet((*alike("a", 1, 4, "old"), *alike("a", 1, 4, "new"), *alike("a", 1, 4, "odd")))
    jobs = [job(f"j{i}", 0, 50, 4, device_types=("new", "old")) for i in range(3)]
    outcome = replay(on, jobs, "queue")
    assert sorted(record.first_s for record in outcome.records) == [0, 0, 50]


def test_clusters_are_apart() -> None:
    on = Fleet((*alike("a", 1, 8), *alike("b", 1, 8)))
    jobs = [job(name, 0, 100, 8, cluster=where) for name, where in (("a1", "a"), ("a2", "a"), ("b1", "b"))]
    assert spans(replay(on, jobs, "fifo")) == {"a1": (0, 100), "a2": (100, 200), "b1": (0, 100)}


def test_device_types_are_kept_apart() -> None:
    on = Fleet((*alike("a", 1, 8, "old"), *alike("a", 1, 8, "new")))
    jobs = [
        job("any", 0, 50, 8),
        job("new", 0, 50, 8, device_types=("new",)),
        job("odd", 0, 1, device_types=("tpu",)),
    ]
    outcome = replay(on, jobs, "fifo")
    assert spans(outcome)["new"][0] == 50  # `any` had the new ones, first by name
    assert of(outcome, "odd").refused == "asks for devices of type tpu; there are new, old"


def test_a_wrong_name_has_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean fifo"):
        prepare(fleet(1), trace(job("a", 0, 1)), "fifoo")
    with pytest.raises(UnknownName, match="no placement 'worst'"):
        prepare(fleet(1), trace(job("a", 0, 1)), "fifo", "worst")
