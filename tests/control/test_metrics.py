"""From readings to rates: pure, so every case is a few numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.control.metrics import HISTORY, Kept, Rate, Tally, memory_of, points_of, shares_of, sizes_of
from midstep.model.usage import NodeUsage, RankUsage


def usage(
    at_s: float,
    steps: int,
    *,
    epoch: int = 1,
    source: int = 7,
    last: bool = False,
    beats: int = 0,
    **rank: float,
) -> NodeUsage:
    """One rank on one node."""
    ranks = (RankUsage(0, steps, resident_bytes=1000, **rank),)  # type: ignore[arg-type]
    return NodeUsage("j-1", epoch, source, at_s, ranks, beats, last)


def rates(tally: Tally) -> dict[int, tuple[float, float]]:
    return {devices: (rate.steps, rate.seconds) for devices, rate in tally.kept.rates.items()}


def test_a_rate_is_of_two_readings_of_one_proxy() -> None:
    tally = Tally()
    assert tally.take("a", usage(10.0, 5), 2, 100.0)
    assert rates(tally) == {}
    assert tally.take("a", usage(12.0, 25), 2, 102.0)
    assert rates(tally) == {2: (20, 2.0)}
    assert tally.take("a", usage(14.0, 30, source=8), 2, 104.0)  # another proxy: its sums begin anew
    assert rates(tally) == {2: (20, 2.0)}
    assert tally.kept.steps == 30


def test_every_byte_is_counted_once() -> None:
    """Also what a proxy carried out before its first reading, for a late rank, and after a pause."""
    tally = Tally()
    sums = [
        (usage(10.0, 5, reduced_bytes=100), 100),
        (usage(12.0, 9, reduced_bytes=130, last=True), 130),
        (usage(14.0, 9, reduced_bytes=150), 150),
        (usage(2.0, 9, reduced_bytes=40, source=8), 190),  # the proxy was killed
        (usage(3.0, 9, reduced_bytes=7, epoch=2, source=9), 197),
    ]
    for one, total in sums:
        tally.take("a", one, 1, one.at_s)
        assert tally.kept.reduced_bytes == total
    two = (RankUsage(0, reduced_bytes=8), RankUsage(1, reduced_bytes=3))
    late = NodeUsage("j-1", 2, 9, 4.0, two)
    tally.take("a", late, 2, 4.0)
    tally.take("b", usage(50.0, 9, reduced_bytes=5, epoch=2, source=3), 2, 4.0)
    assert tally.kept.reduced_bytes == 206
    again = Tally(tally.kept)  # a controller that was away
    again.take("a", usage(20.0, 9, reduced_bytes=60, epoch=2, source=9), 1, 20.0)
    again.take("a", usage(21.0, 9, reduced_bytes=61, epoch=2, source=9), 1, 21.0)
    assert again.kept.reduced_bytes == 207


def test_before_the_first_step_nothing_counts_for_a_size() -> None:
    tally = Tally()
    for at_s, steps in ((0.0, 0), (50.0, 0), (52.0, 4), (54.0, 14)):
        tally.take("a", usage(at_s, steps), 1, at_s)
    assert rates(tally) == {1: (10, 2.0)}


def test_a_resize_makes_a_second_size_and_the_older_epoch_is_fenced() -> None:
    tally = Tally()
    tally.take("a", usage(0.0, 10), 2, 0.0)
    tally.take("a", usage(2.0, 30), 2, 2.0)
    tally.take("a", usage(2.5, 30, epoch=2, source=8), 1, 2.5)
    assert not tally.take("a", usage(3.0, 99, last=True), 0, 3.0)
    tally.take("a", usage(6.5, 60, epoch=2, source=8), 1, 6.5)
    assert rates(tally) == {2: (20, 2.0), 1: (30, 4.0)}
    one, two = sizes_of(tally.kept.rates)
    assert (one.devices, one.steps_per_s, one.efficiency, one.measured_s) == (1, 7.5, 1.0, 4.0)
    assert (two.devices, two.steps_per_s) == (2, 10.0)
    assert two.efficiency == pytest.approx(10.0 / 2 / 7.5)


def test_standing_still_is_not_measured() -> None:
    """After the last words before a cut, the same proxy may go on: the pause counts for nobody."""
    tally = Tally()
    tally.take("a", usage(0.0, 10), 1, 0.0)
    tally.take("a", usage(2.0, 20, last=True), 1, 2.0)
    assert tally.recent(2.0) is None
    tally.take("a", usage(900.0, 20), 1, 900.0)
    tally.take("a", usage(902.0, 30), 1, 902.0)
    assert rates(tally) == {1: (20, 4.0)}


def test_a_rollback_takes_steps_back_and_no_rate_is_negative() -> None:
    tally = Tally()
    tally.take("a", usage(0.0, 100), 1, 0.0)
    tally.take("a", usage(2.0, 60), 1, 2.0)
    assert tally.kept.steps == 60
    assert rates(tally) == {1: (0, 2.0)}
    assert sizes_of(tally.kept.rates) == ()


def test_without_an_optimizer_the_beat_of_reductions_counts() -> None:
    tally = Tally()
    for at_s, beats in ((0.0, 3), (2.0, 13), (4.0, 23)):
        tally.take("a", usage(at_s, 0, beats=beats), 1, at_s)
    assert (tally.kept.counted, tally.kept.steps, rates(tally)) == ("collectives", 23, {1: (20, 4.0)})
    tally.take("a", usage(6.0, 5, beats=33), 1, 6.0)
    assert tally.kept.counted == "optimizer"
    assert rates(tally) == {}  # beats and steps are not the same unit


def test_the_node_of_the_lowest_rank_speaks_for_the_job() -> None:
    tally = Tally()
    for at_s in (0.0, 2.0):
        steps = 10 + int(at_s) * 10
        tally.take("b", NodeUsage("j-1", 1, 8, at_s, (RankUsage(1, steps, computing_s=at_s),)), 2, at_s)
        tally.take("a", NodeUsage("j-1", 1, 7, at_s, (RankUsage(0, steps, computing_s=at_s),)), 2, at_s)
    assert rates(tally) == {2: (20, 2.0)}
    assert tally.kept.computing_s == 4.0  # of both
    assert len(tally.windows) == 1


def test_memory_is_of_the_rank_that_has_most() -> None:
    small = RankUsage(0, parameters_bytes=10, optimizer_bytes=20, gradients_bytes=10, resident_bytes=100)
    large = RankUsage(1, parameters_bytes=30, optimizer_bytes=60, gradients_bytes=30, resident_bytes=150)
    memory = memory_of([small, large])
    assert (memory.parameters, memory.optimizer, memory.gradients) == (30, 60, 30)
    assert (memory.other, memory.resident) == (60, 250)
    on_device = RankUsage(0, parameters_bytes=30, device_bytes=70, resident_bytes=900)
    assert memory_of([on_device]).other == 40  # tensors are on the GPU: the process's own memory says nothing


def test_what_fades_and_what_is_forgotten() -> None:
    rate = Rate()
    for _ in range(1000):
        rate.add(10, 10.0)
    for _ in range(400):
        rate.add(20, 10.0)
    assert rate.seconds <= 1200
    assert rate.steps / rate.seconds > 1.9
    tally = Tally()
    for number in range(3 * HISTORY):
        tally.take("a", usage(number, number), 1, number)
    assert len(points_of(tally)) == HISTORY
    assert points_of(tally)[-1].steps_per_s == 1.0


@given(st.lists(st.tuples(*[st.floats(-5, 50)] * 4), min_size=2, max_size=8))
def test_shares_are_parts_of_the_time(readings: list[tuple[float, float, float, float]]) -> None:
    """Whatever the kernel's and the engine's clocks say."""
    tally = Tally(Kept())
    at_s = 0.0
    for step_s, computing_s, reducing_s, queueing_s in readings:
        at_s += abs(step_s) + 0.1
        sums = {"computing_s": computing_s, "reducing_s": reducing_s, "queueing_s": queueing_s}
        tally.take("a", usage(at_s, 1, **sums), 1, 0.0)
    now = tally.recent(0.0)
    assert now is not None
    shares = shares_of(now)
    assert shares.computing + shares.reducing + shares.waiting == pytest.approx(1.0)
    assert 0 <= shares.queueing <= shares.waiting + 1e-9 and shares.computing >= 0 and shares.reducing >= 0
