"""Guarantees and idle devices, on runs small enough to be reckoned by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.model.tiers import Tier
from midstep.sim.catalogue import Ground
from midstep.sim.core import Core
from midstep.sim.fleet import Fleet, alike
from midstep.sim.guarantees import kept, worst_hour
from midstep.sim.metrics import figures, job_table, summary
from midstep.sim.outcome import Outcome
from midstep.sim.policy import Action, Decline, Grant, Move, News, Orders, Start, Stop
from midstep.sim.record import Record
from midstep.sim.trace import Job
from midstep.sim.watch import Watch
from tests.sim.build import fleet, job, of, replay, trace
from tests.sim.test_core import Scripted

ALL = Grant((0,), (8,))


def do(*actions: Action) -> Callable[[News], Orders]:
    return lambda news: Orders(list(actions))


def held_for(wait_s: int, long_s: int, tier: Tier = Tier.PREMIUM) -> Outcome:
    """The job `late` waits for another one to end."""
    jobs = [job("before", 0, wait_s, 8, tier=Tier.BASIC), job("late", 0, long_s, 8, tier=tier)]
    return replay(fleet(1), jobs, "fifo")


@pytest.mark.parametrize(("wait_s", "under"), [(180, 0), (181, 1)])
def test_premium_may_lack_three_minutes_of_an_hour(wait_s: int, under: int) -> None:
    found = summary(held_for(wait_s, 20_000)).kept["premium"]
    assert (found.held, found.under_hour) == (1, under)
    assert found.worst_hour == pytest.approx(1 - wait_s / 3600)
    assert found.worst_life == pytest.approx(20_000 / (20_000 + wait_s)) and found.under_life == 0


def test_a_short_job_has_the_same_allowance_but_its_life_is_counted_as_it_is() -> None:
    found = summary(held_for(170, 60)).kept["premium"]
    assert (found.under_hour, found.under_life) == (0, 1)
    assert found.worst_life == pytest.approx(60 / 230)


def test_the_worst_hour_is_found_wherever_it_is() -> None:
    """Half a rate for half an hour twice, an hour apart from middle to middle: no hour has all of both."""
    (one,) = jobs = trace(job("one", 0, 20_000, 8, tier=Tier.STANDARD)).jobs
    halves = {at: do(Move(one, Grant((0,), (4,)), rate=0.5)) for at in (4000, 7600)}
    fulls = {at: do(Move(one, ALL)) for at in (5800, 9400)}
    core = Core(fleet(1), jobs, Scripted({0: do(Start(one, ALL)), **halves, **fulls}))
    record = core.run().records[0]
    short = worst_hour(record, 0.0)
    assert short is not None and short.lacked_s == pytest.approx(900)
    assert short.spans[0][0] == pytest.approx(4000, abs=1)


def test_work_done_again_was_no_progress() -> None:
    (one,) = jobs = trace(job("one", 0, 7200, 8, tier=Tier.STANDARD)).jobs
    orders = {
        0: do(Start(one, ALL)),
        3600: do(Stop(one, lost_s=1800), Start(one, ALL)),
    }
    outcome = Core(fleet(1), jobs, Scripted(orders)).run()
    record = outcome.records[0]
    assert record.stretches == [(0, 1800, 1.0), (3600, 9000, 1.0)]
    found = kept(outcome)[0]["standard"]
    # Half of the first hour is lacking, where three tenths may; that is so from 1800 + 1080 s on.
    assert (found.under_hour, found.worst_hour, found.first_s) == (1, 0.5, 2880)
    assert found.worst_life == 0.8


def test_the_first_shortfall_has_its_cause() -> None:
    outcome = held_for(1000, 5000)
    found = summary(outcome).kept["premium"]
    assert found.first_s == 180 and found.avoidable == 1
    assert found.first == (
        "job late (8 devices, submitted at 0 s), from 180 s on, when it made no progress; 0 of 8 devices were"
        " free, 8 waited for; guaranteed to admitted jobs: 7.6 of 8"
    )


def test_what_cannot_be_kept_is_not_avoidable() -> None:
    jobs = [job(name, 0, 5000, 8, tier=Tier.PREMIUM) for name in "ab"]
    found = summary(replay(fleet(1), jobs, "fifo")).kept["premium"]
    assert (found.under_hour, found.avoidable) == (1, 0)
    assert "guaranteed to admitted jobs: 15.2 of 8" in found.first


def test_a_guarantee_that_was_declined_is_not_broken() -> None:
    one, two = jobs = trace(*(job(n, 0, 5000, 8, tier=Tier.PREMIUM) for n in "ab")).jobs
    orders = {
        0: do(Start(one, ALL), Decline(two, "none left")),
        5000: do(Start(two, ALL)),
    }
    outcome = Core(fleet(1), jobs, Scripted(orders)).run()
    found = summary(outcome).kept["premium"]
    assert (found.jobs, found.held, found.without, found.under_hour) == (2, 1, 1, 0)
    assert job_table(outcome)["without_guarantee"] == ["", "none left"]


def test_a_job_can_be_turned_away() -> None:
    one, two = jobs = trace(*(job(n, 0, 50, 8) for n in "ab")).jobs
    orders = {0: do(Start(one, ALL), Decline(two, "full", for_good=True))}
    outcome = Core(fleet(1), jobs, Scripted(orders)).run()
    assert of(outcome, "b").refused == "full" and outcome.timeline.waiting_devices[-1] == 0
    assert summary(outcome).refused == 1 and summary(outcome).jobs == 1


def by_seconds(record: Record) -> float:
    """The most that was lacking in an hour, by counting every second."""
    lacking: list[float] = []
    for second in range(record.job.submit_s, record.end_s):
        lacking.append(1.0 - sum(rate for s, u, rate in record.stretches if s <= second < u))
    sums = [0.0]
    for value in lacking:
        sums.append(sums[-1] + value)
    return max(sums[i] - sums[max(0, i - 3600)] for i in range(len(sums)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_worst_hour_is_what_counting_seconds_finds(seed: int) -> None:
    chance = random.Random(seed)
    record = Record(Job(0, "x", chance.randrange(500), 1, 1), 0)
    at_s = record.job.submit_s
    for _ in range(chance.randint(1, 8)):
        since_s = at_s + chance.choice([0, 1, 60, 1500])
        at_s = since_s + chance.randint(1, 2500)
        record.stretches.append((since_s, at_s, chance.choice([0.25, 0.5, 1.0])))
    record.end_s = at_s + chance.choice([0, 1])
    short = worst_hour(record, 0.0)
    assert (short.lacked_s if short else 0.0) == pytest.approx(by_seconds(record))


def test_idle_is_what_a_waiting_job_would_fit_into() -> None:
    """Strict FIFO: 4 devices are free from 0 to 100, and one that wants 2 waits from 20 s on behind one that
    wants 8."""
    jobs = [job("a", 0, 100, 4), job("large", 10, 50, 8), job("small", 20, 50, 2), job("end", 300, 1, 1)]
    outcome = replay(fleet(1), jobs, "fifo")
    assert dict(zip(outcome.timeline.at_s, outcome.timeline.idle)) == {
        0: 0, 10: 0, 20: 4, 100: 0, 150: 0, 200: 0, 300: 0, 301: 0,
    }  # fmt: skip
    found = summary(outcome)
    assert found.idle_fit_h == pytest.approx(4 * 80 / 3600)
    assert found.idle_fit_share == pytest.approx(4 * 80 / (300 * 8))


def test_devices_too_scattered_are_not_idle() -> None:
    """3 and 4 are free on two nodes, and a job of 5 waits."""
    jobs = [job("a", 0, 100, 4), job("b", 0, 100, 5), job("c", 1, 10, 5), job("end", 200, 1, 1)]
    outcome = replay(fleet(2), jobs, "fifo")
    assert outcome.timeline.used[1] == 9 and of(outcome, "c").first_s == 100
    assert summary(outcome).idle_fit_h == 0


def test_partitions_idle_where_others_wait() -> None:
    on = Fleet(tuple(alike("a", 2, 8)), groups={"a": {"x": 1, "y": 1}})
    jobs = [job("x1", 0, 100, 8, group="x"), job("x2", 0, 100, 8, group="x"), job("y", 200, 1, 1, group="y")]
    assert summary(replay(on, jobs, "static")).idle_fit_h == pytest.approx(8 * 100 / 3600)


@pytest.mark.parametrize("placement", ["consolidate", "best-fit"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_nothing_that_fits_is_overlooked(placement: str, seed: int) -> None:
    """The watch says what trying to place every waiting job says, whatever comes and goes."""
    chance, on = random.Random(seed), fleet(3, cluster="a")
    mine, its = (Ground(on, (0, 1, 2), (), placement, 0).placer() for _ in range(2))
    jobs = [
        replace(job(f"{i}", 0, 1, chance.choice([1, 2, 5, 8, 12, 17])), index=i, cpus=float(i % 2))
        for i in range(30)
    ]
    watch = Watch({"a": its}, ["a"] * 3, ["a"] * len(jobs), None)
    waiting: list[Job] = []
    running: list[tuple[Job, Grant]] = []
    down: list[int] = []
    for _ in range(60):
        what = chance.random()
        if what < 0.45 and jobs:
            waiting.append(jobs.pop())
            watch.waits(waiting[-1])
        elif what < 0.7 and waiting and (grant := mine.place(waiting[0])):
            running.append((waiting.pop(0), grant))
            watch.waits_no_more(running[-1][0])
            watch.taken(*running[-1])
        elif what < 0.9 and running:
            gone = running.pop(chance.randrange(len(running)))
            mine.give_back(*gone)
            watch.given_back(gone[0])
        elif down:
            mine.regain(down[0])
            watch.back(down.pop())
        elif not any(2 in grant.nodes for _, grant in running):
            down.append(2)
            mine.lose(2)
            watch.lost(2)
        fits = any(mine.copy().place(one) is not None for one in waiting)
        assert watch.idle() == (mine.free if fits else 0)


def test_stops_and_those_under_their_guarantee_are_there_over_time() -> None:
    outcome = held_for(1000, 3000)
    found = figures(outcome)[1]
    step_s = (outcome.timeline.at_s[-1]) / len(found.hours)
    # Under it from 180 s on, until an hour later less than 180 s are left in the window.
    assert sum(found.under["premium"]) * step_s == pytest.approx(4000 - 180, rel=0.01)
    assert sum(found.disturbed) == 0
    again = figures(replay(fleet(1), [job("long", 0, 100, 8), job("short", 40, 10, 8)], "srtf"))[1]
    assert sum(again.disturbed) * 140 / 3600 / len(again.hours) == pytest.approx(1, rel=0.05)
