"""Spot nodes: taken away at short notice, under every policy."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from midstep.model.tiers import Tier
from midstep.sim.catalogue import prepare
from midstep.sim.core import Core
from midstep.sim.failures import Failures, Faults, Spot, Turns
from midstep.sim.fleet import Fleet, alike
from midstep.sim.outcome import Outcome
from midstep.sim.policy import News, Orders
from tests.sim.build import job, of, trace

OFTEN = Spot(stays_h=2.0, away_h=0.5)
JOBS = [job(f"j{i}", 131 * i, 1500 + 700 * (i % 7), (1, 2, 4, 8)[i % 4]) for i in range(50)]


def half_spot(nodes: int = 4) -> Fleet:
    """Every second node is a spot node."""
    return Fleet(tuple(replace(node, spot=i % 2 == 1) for i, node in enumerate(alike("a", nodes, 8))))


def core(policy: str, spot: Spot | None = OFTEN, seed: int = 1) -> Core:
    failures = Failures(spot=spot) if spot else None
    return prepare(half_spot(), trace(*JOBS), policy, seed=seed, failures=failures)


def under(policy: str, spot: Spot | None = OFTEN, seed: int = 1) -> Outcome:
    """With the books looked at before every decision."""
    run = core(policy, spot, seed)
    decide = run.policy.decide

    def checked(news: News) -> Orders:
        run.check()
        return decide(news)

    run.policy.decide = checked
    return run.run()


def test_who_heeds_the_notice_loses_nothing() -> None:
    outcome = under("midstep")
    assert min(outcome.timeline.there) < 32 == max(outcome.timeline.there)
    assert sum(record.cuts for record in outcome.records) == 0
    moved = sum(record.stops + record.moves for record in outcome.records)
    assert moved > sum(record.stops + record.moves for record in under("midstep", None).records)
    # What is about to leave is not counted as free.
    timeline = outcome.timeline
    assert not any(idle for there, idle in zip(timeline.there, timeline.idle) if there < 32)


@pytest.mark.parametrize("notice_s", [0, 5])
def test_a_notice_that_is_too_short_to_suspend_is_none(notice_s: int) -> None:
    outcome = under("midstep", replace(OFTEN, notice_s=notice_s))
    assert sum(record.cuts for record in outcome.records) > 3
    assert all(record.end_s > 0 for record in outcome.records)


@pytest.mark.parametrize("policy", ["fifo", "las", "easy", "restart", "queue"])
def test_rivals_are_cut_off(policy: str) -> None:
    outcome = under(policy)
    assert sum(record.cuts for record in outcome.records) > 3
    assert all(record.end_s > 0 for record in outcome.records)


def test_the_same_seed_takes_the_same_nodes() -> None:
    ends = [[record.end_s for record in under("midstep", seed=seed).records] for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def test_a_guarantee_stands_on_spot_nodes_only_if_its_user_said_so() -> None:
    asks = [
        job("firm", 0, 1000, 16, tier=Tier.PREMIUM),
        job("not", 1, 1000, 8, tier=Tier.PREMIUM),
        job("ok", 2, 1000, 8, tier=Tier.PREMIUM, spot_ok=True),
    ]
    outcome = prepare(half_spot(), trace(*asks), "midstep", failures=Failures(spot=Spot(1e6))).run()
    assert [bool(of(outcome, name).unguaranteed) for name in ("firm", "not", "ok")] == [False, True, False]


def stays(spot: Spot, mtbf_h: float = float("inf"), days: int = 2000) -> tuple[list[float], list[float], int]:
    """Hours that a spot node was there, and away; how often it went without a notice."""
    faults = Faults(Failures(mtbf_h, spot=spot), ["a"], 1, 0, [True])
    came_s, went_s, told_s, unsaid = 0.0, 0.0, -1.0, 0
    there: list[float] = []
    away: list[float] = []
    while (at_s := faults.next_s) < days * 86400:
        turns = faults.at(int(at_s))
        if turns.noticed:
            told_s = at_s
        if turns.lost:
            there.append((at_s - came_s) / 3600)
            went_s = at_s
            unsaid += told_s != at_s - spot.notice_s
        if turns.back:
            away.append((at_s - went_s) / 3600)
            came_s = at_s
    return there, away, unsaid


def test_what_is_drawn_has_the_stated_means() -> None:
    there, away, unsaid = stays(Spot(stays_h=20.0, away_h=2.0, away_sigma=0.5))
    assert statistics.mean(there) == pytest.approx(20, rel=0.1)
    assert statistics.mean(away) == pytest.approx(2, rel=0.1)
    assert unsaid == 0


def test_spot_nodes_fail_like_others() -> None:
    there, _, unsaid = stays(Spot(stays_h=20.0), mtbf_h=20.0)
    assert statistics.mean(there) == pytest.approx(10, rel=0.1)
    assert 0.4 < unsaid / len(there) < 0.6


def test_others_are_not_taken_away() -> None:
    faults = Faults(Failures(spot=OFTEN), ["a", "b"], 1, 0, [False, True])
    gone = [faults.at(int(faults.next_s)).lost for _ in range(200)]
    assert {node for nodes in gone for node in nodes} == {1}


def test_who_was_told_sees_the_node_go_and_come_back() -> None:
    """Even if nobody looked for weeks, because nothing ran."""
    faults = Faults(Failures(spot=OFTEN), ["a"], 1, 0, [True])
    while not faults.at(int(faults.next_s)).noticed:
        pass
    assert faults.at(10**7) == Turns([], [0], [])
    assert faults.at(10**7 + 1).back == [0]
