"""How often running jobs are saved: the formula against a simulation, and who has the last word."""

from __future__ import annotations

import math
import random

import pytest

from midstep.model.job import CheckpointRule
from midstep.policy.intervals import ARCHIVED, FLEET, PRIOR_NODE_S, STEADY_COST, best_s, interval, loss_rate

RATE = loss_rate(0, 0)
OPEN = CheckpointRule(min_s=1, max_s=10**9)


def share_lost(every_s: float, pause_s: float, between_s: float, seed: int = 1) -> float:
    """What part of a long time is not spent on work that counts, with losses at random."""
    chance = random.Random(seed)
    clock = done = 0.0
    while clock < 400 * between_s:
        until_loss = chance.expovariate(1 / between_s)
        done += int(until_loss // every_s) * (every_s - pause_s)
        clock += until_loss
    return 1 - done / clock


@pytest.mark.parametrize(("pause_s", "between_s"), [(1, 1000), (10, 1000), (60, 600), (0.5, 86400)])
def test_no_other_interval_loses_less(pause_s: float, between_s: float) -> None:
    best = best_s(pause_s, between_s)
    at_best = share_lost(best, pause_s, between_s)
    for other in (best / 3, best * 3):
        assert share_lost(other, pause_s, between_s) > at_best


def test_it_is_youngs_when_a_pause_is_short() -> None:
    assert best_s(1, 10**7) == pytest.approx(math.sqrt(2 * 10**7), rel=0.001)


def test_nothing_is_saved_more_often_than_it_pays() -> None:
    assert best_s(100, 10) > 100 and best_s(0, 10) == 0


def test_steady_cost_is_bounded_unless_the_user_names_the_interval() -> None:
    for pause_s in (0.1, 1, 30, 300):
        for beside_s in (0.0, pause_s / 2, 3 * pause_s):
            found = interval(None, OPEN, pause_s, 1000, loss_rate(1000, 1.0), beside_s)
            cost_s = pause_s + ARCHIVED * beside_s
            assert found.seconds is not None and cost_s / found.seconds <= STEADY_COST * 1.0001
    often = CheckpointRule(every_s=5)
    assert interval(often, FLEET, 300, 1, RATE).seconds == 5


def test_more_nodes_and_more_losses_make_it_more_frequent() -> None:
    one = interval(None, OPEN, 1.0, 1, RATE).seconds
    many = interval(None, OPEN, 1.0, 16, RATE).seconds
    unlucky = interval(None, OPEN, 1.0, 1, loss_rate(20, PRIOR_NODE_S)).seconds
    assert one and many and unlucky and many < one and unlucky < one
    assert one / many == pytest.approx(4, rel=0.05), "it goes with the root"


def test_what_is_seen_outweighs_the_prior() -> None:
    assert loss_rate(0, 1000 * PRIOR_NODE_S) < RATE / 500
    assert loss_rate(1000, 1000.0) == pytest.approx(1001 / (1000 + PRIOR_NODE_S))


def test_settings_have_the_last_word_and_say_so() -> None:
    fleet = CheckpointRule(min_s=100, max_s=200)
    assert interval(None, fleet, 1.0, 1, RATE) == interval(CheckpointRule(), fleet, 1.0, 1, RATE)
    most = interval(None, fleet, 1.0, 1, RATE)
    assert most.seconds == 200 and "not less often" in most.why
    least = interval(None, fleet, 1e-6, 1, RATE)
    assert least.seconds == 100 and "not more often" in least.why
    own = interval(CheckpointRule(max_s=150), fleet, 1.0, 1, RATE)
    assert own.seconds == 150
    assert interval(None, CheckpointRule(off=True), 1.0, 1, RATE).seconds is None
    assert interval(CheckpointRule(off=True), fleet, 1.0, 1, RATE).seconds is None
    assert interval(CheckpointRule(), CheckpointRule(off=True), 1.0, 1, RATE).seconds is not None
