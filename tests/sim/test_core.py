"""What the core does with a policy's orders, and what it does not accept."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from midstep.sim.catalogue import PLACEMENTS, POLICIES, prepare
from midstep.sim.core import Core
from midstep.sim.errors import Stuck
from midstep.sim.policy import Grant, Move, News, Orders, Start, Stop
from midstep.sim.trace import Job
from tests.sim.build import fleet, job, replay, spans, trace


class Scripted:
    """Orders by moment."""

    name = "scripted"
    end_lag_s = 0

    def __init__(self, orders: dict[int, Callable[[News], Orders]]) -> None:
        self._orders = orders

    def decide(self, news: News) -> Orders:
        orders = self._orders.get(news.now_s, lambda _: Orders())(news)
        later = [at for at in self._orders if at > news.now_s]
        orders.wake_s = min(later, default=None)
        return orders


def run(jobs: tuple[Job, ...], orders: dict[int, Callable[[News], Orders]], nodes: int = 1) -> Core:
    core = Core(fleet(nodes), jobs, Scripted(orders))
    core.run()
    core.check()
    return core


def test_work_goes_on_where_a_stop_left_it() -> None:
    (one,) = jobs = trace(job("one", 0, 100, 8)).jobs
    grant = Grant((0,), (8,))
    core = run(
        jobs,
        {
            0: lambda news: Orders([Start(one, grant)]),
            30: lambda news: Orders([Stop(one, lost_s=10)]),
            50: lambda news: Orders([Start(one, grant, overhead_s=5)]),
        },
    )
    record = core.records[0]
    # 30 s of 100 done, 10 of them lost; 20 s of waiting; 5 s to come up again; 80 s.
    assert (record.first_s, record.end_s, record.wait_s, record.stops) == (0, 135, 20, 1)
    assert record.held_device_s == 8 * 115 and record.lost_device_s == 8 * 15


def test_fewer_devices_are_slower_and_a_move_costs() -> None:
    (one,) = jobs = trace(job("one", 0, 100, 8)).jobs
    core = run(
        jobs,
        {
            0: lambda news: Orders([Start(one, Grant((0,), (8,)))]),
            40: lambda news: Orders([Move(one, Grant((1,), (4,)), overhead_s=2, rate=0.5)]),
        },
        nodes=2,
    )
    record = core.records[0]
    assert (record.end_s, record.moves, record.wait_s) == (40 + 2 + 120, 1, 0)
    assert record.held_device_s == 40 * 8 + 122 * 4 and record.lost_device_s == 2 * 4


def test_a_stop_before_the_overhead_is_over_loses_only_what_was() -> None:
    (one,) = jobs = trace(job("one", 0, 10, 2)).jobs
    grant = Grant((0,), (2,))
    core = run(
        jobs,
        {
            0: lambda news: Orders([Start(one, grant, overhead_s=60)]),
            20: lambda news: Orders([Stop(one), Start(one, grant)]),
        },
    )
    assert core.records[0].end_s == 30
    assert core.records[0].lost_device_s == 2 * 20


IMPOSSIBLE: list[tuple[Callable[[Job], Start | Stop | Move], str]] = [
    (lambda job: Start(job, Grant((0,), (9,))), "gives more of a-0"),
    (Stop, "which does not run"),
    (lambda job: Move(job, Grant((0,), (1,))), "which does not run"),
]


@pytest.mark.parametrize(("order", "says"), IMPOSSIBLE)
def test_the_impossible_is_refused(order: Callable[[Job], Start | Stop | Move], says: str) -> None:
    (one,) = jobs = trace(job("one", 0, 10)).jobs
    with pytest.raises(Stuck, match=says):
        run(jobs, {0: lambda news: Orders([order(one)])})


def test_nobody_starts_twice() -> None:
    (one,) = jobs = trace(job("one", 0, 10)).jobs
    grant = Grant((0,), (1,))
    with pytest.raises(Stuck, match="which does not wait"):
        run(jobs, {0: lambda news: Orders([Start(one, grant), Start(one, grant)])})


def test_waiting_for_ever_is_said() -> None:
    with pytest.raises(Stuck, match="leaves 1 jobs waiting for ever"):
        run(trace(job("one", 0, 10)).jobs, {})


def test_a_job_without_duration_ends_at_once() -> None:
    outcome = replay(fleet(1), [job("empty", 5, 0, 8), job("next", 5, 10, 8)], "fifo")
    assert spans(outcome) == {"empty": (5, 5), "next": (5, 15)}


def test_the_timeline_adds_up() -> None:
    outcome = replay(fleet(1), [job("a", 0, 10, 8), job("b", 2, 10, 4)], "fifo")
    line = outcome.timeline
    assert line.at_s == [0, 2, 10, 20]
    assert line.used == [8, 8, 4, 0] and line.waiting_devices == [0, 4, 0, 0]


JOBS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 9000), st.sampled_from([1, 1, 2, 3, 4, 8, 11, 16])),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("policy", list(POLICIES))
@settings(max_examples=25, deadline=None)
@given(drawn=JOBS, seed=st.integers(0, 3), placement=st.sampled_from(sorted(PLACEMENTS)))
@example(drawn=[(0, 2, 3), (0, 2, 11), (1, 0, 16), (1, 1, 3)], seed=0, placement="best-fit")
def test_whatever_comes_every_job_ends_and_no_time_is_made_up(
    policy: str, drawn: list[tuple[int, int, int]], seed: int, placement: str
) -> None:
    chance = random.Random(seed)
    jobs = [
        job(f"j{i}", at, long, many, group=chance.choice("xy")) for i, (at, long, many) in enumerate(drawn)
    ]
    core = prepare(fleet(4), trace(*jobs), policy, placement, seed)
    decide, lag_s = core.policy.decide, core.policy.end_lag_s

    def checked(news: News) -> Orders:
        core.check()
        return decide(news)

    core.policy.decide = checked
    for record in core.run().records:
        if record.refused:
            continue
        assert record.end_s >= record.job.submit_s and record.wait_s >= 0
        worked = record.job.duration_s * record.job.devices + record.lost_device_s
        lags = (record.held_device_s - worked) / record.job.devices
        assert lags >= 0
        if all(rate == 1.0 for _, _, rate in record.stretches):  # else sharing a device has its price
            assert lags <= lag_s * (1 + record.stops)
