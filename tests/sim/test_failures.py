"""Nodes that fail and come back, under every policy."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest

from midstep.sim.catalogue import PLACEMENTS, POLICIES, prepare
from midstep.sim.core import Core
from midstep.sim.costs import Costs
from midstep.sim.failures import Failures, Faults, Saved, Turns, by_midstep
from midstep.sim.metrics import summary
from midstep.sim.outcome import Outcome, Terms
from midstep.sim.policy import Grant, News, Orders, Start
from midstep.sim.trace import Job
from tests.sim.build import fleet, job, of, trace

OFTEN = Failures(mtbf_h=3.0, repair_h=0.5)
JOBS = [
    job(f"j{i}", 97 * i, 1000 + 700 * (i % 9), (1, 2, 4, 8, 16)[i % 5], group="xy"[i % 2]) for i in range(60)
]


def under(
    policy: str, failures: Failures | None = OFTEN, placement: str = "consolidate", seed: int = 1
) -> Outcome:
    core = prepare(fleet(4), trace(*JOBS), policy, placement, seed, failures=failures)
    decide = core.policy.decide

    def checked(news: News) -> Orders:
        core.check()
        return decide(news)

    core.policy.decide = checked
    return core.run()


RIVALS = [name for name, entry in POLICIES.items() if not entry.whole_fleet]


@pytest.mark.parametrize("policy", RIVALS)
def test_every_rival_goes_on(policy: str) -> None:
    outcome = under(policy)
    assert sum(record.cuts for record in outcome.records) > 5
    assert min(outcome.timeline.there) < 32 == max(outcome.timeline.there)
    for record in outcome.records:
        worked = record.job.duration_s * record.job.devices + record.lost_device_s
        lags = (record.held_device_s - worked) / record.job.devices
        assert -1e-6 <= lags <= (1 + record.stops + record.cuts)
    assert summary(outcome).lost_h > summary(under(policy, None)).lost_h


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_every_placement_goes_on(placement: str) -> None:
    outcome = under("fifo", placement=placement)
    assert sum(record.cuts for record in outcome.records) > 5
    assert all(record.end_s > 0 for record in outcome.records)


def test_the_same_seed_fails_the_same_way() -> None:
    ends = [[record.end_s for record in under("fifo", seed=seed).records] for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def cut(saves: Saved, at: int = 5000) -> Outcome:
    """A job of 10,000 s whose node fails once."""
    (one,) = jobs = trace(job("one", 0, 10_000, 8)).jobs
    terms = Terms(failures=Failures(1e6), saves=lambda job, nodes: saves)
    core = Core(fleet(1), jobs, Again(one), terms)
    core._faults = Scripted([(at, [], [0]), (at + 100, [0], [])])  # pyright: ignore
    outcome = core.run()
    core.check()
    return outcome


class Again:
    name, end_lag_s = "again", 0

    def __init__(self, one: Job) -> None:
        self._one = one

    def decide(self, news: News) -> Orders:
        up = news.arrived or news.back
        return Orders([Start(self._one, Grant((0,), (8,)))] if up else [])


class Scripted:
    def __init__(self, events: list[tuple[int, list[int], list[int]]]) -> None:
        self._events: list[tuple[int, list[int], list[int]]] = [*events, (1 << 40, [], [])]

    @property
    def next_s(self) -> int:
        return self._events[0][0]

    def at(self, now_s: int) -> Turns:
        _, back, lost = self._events.pop(0)
        return Turns(back, lost, [])


@pytest.mark.parametrize(
    ("saves", "end_s", "lost"),
    [
        (Saved(3600.0), 10_000 + 100 + 1400, 1400),  # the last full hour is kept
        (Saved(None), 10_000 + 100 + 5000, 5000),  # nothing is
        (Saved(1000.0, 100.0), 11_112 + 100, 10_000 / 9),  # a tenth of the time goes into saving
    ],
)
def test_what_a_failure_costs(saves: Saved, end_s: int, lost: float) -> None:
    record = of(cut(saves), "one")
    assert (record.cuts, record.stops) == (1, 0)
    assert record.end_s == pytest.approx(end_s, abs=1)
    assert record.lost_device_s == pytest.approx(8 * lost, rel=0.001)


def test_a_policy_that_forgets_a_job_is_caught() -> None:
    (one,) = jobs = trace(job("one", 0, 10, 8)).jobs
    terms = Terms(failures=OFTEN, saves=lambda job, nodes: Saved(None))

    class Forgets(Again):
        def decide(self, news: News) -> Orders:
            return Orders()

    with pytest.raises(Exception, match="leaves 1 jobs waiting for ever"):
        Core(fleet(1), jobs, Forgets(one), terms).run()


def drawn(failures: Failures, days: int = 4000) -> tuple[list[float], list[float]]:
    """Hours that a node was there, and away."""
    faults = Faults(failures, ["a"], 1, 0)
    last_s, hours = 0.0, {True: list[float](), False: list[float]()}
    while faults.next_s < days * 86400:
        at_s = faults.next_s
        turns = faults.at(int(at_s))
        back, lost = turns.back, turns.lost
        hours[bool(lost)].append((at_s - last_s) / 3600)
        assert len(back) + len(lost) == 1
        last_s = at_s
    return hours[True], hours[False]


@pytest.mark.parametrize("shape", [1.0, 0.7])
def test_what_is_drawn_has_the_stated_means(shape: float) -> None:
    up, away = drawn(Failures(mtbf_h=20.0, repair_h=2.0, shape=shape, repair_sigma=0.5))
    assert statistics.mean(up) == pytest.approx(20, rel=0.1)
    assert statistics.mean(away) == pytest.approx(2, rel=0.1)
    # An exponential's deviation is its mean; a Weibull's of shape 0.7 is half as large again.
    spread = statistics.stdev(up) / statistics.mean(up)
    assert (spread > 1.25) == (shape < 1) and spread < 1.7


def test_a_node_is_the_same_in_a_larger_fleet() -> None:
    small, large = Faults(OFTEN, ["a"], 1, 0), Faults(OFTEN, ["b", "a"], 1, 0)
    at_s = small.next_s
    while large.next_s < at_s:
        large.at(int(large.next_s))
    assert large.next_s == at_s and large.at(int(at_s)).lost == [1]


def test_ours_are_saved_as_often_as_it_pays() -> None:
    saves: Callable[[Job, int], Saved] = by_midstep(Failures(mtbf_h=1000), Costs(checkpoint_s=5))
    one, many = saves(JOBS[0], 1), saves(JOBS[0], 100)
    assert one.every_s == 3600  # not less often than each hour, however rare failures are
    assert many.every_s and 500 < many.every_s < 1000 and many.pause_s == 5
