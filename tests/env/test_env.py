"""The mock clock jumps and wakes in order; ids repeat with their seed."""

from __future__ import annotations

import asyncio
import random

import pytest

from midstep.env import Ids, MockClock, RealClock, real_ids
from midstep.env.mock import NothingSleeps


async def test_run_jumps_over_hours_and_wakes_in_the_order_of_moments() -> None:
    clock, order = MockClock(), list[tuple[str, float]]()

    async def sleeper(name: str, duration_s: float) -> None:
        await clock.sleep(duration_s)
        order.append((name, clock.monotonic_s()))

    async def everything() -> None:
        await asyncio.gather(
            sleeper("late", 7200), sleeper("early", 60), sleeper("early too", 60), sleeper("now", 0)
        )

    await clock.run(everything())
    assert order == [("now", 0), ("early", 60), ("early too", 60), ("late", 7200)]


async def test_advance_stops_at_its_end_and_chains_what_wakes() -> None:
    clock, ticks = MockClock(start_s=1000.0), list[float]()

    async def ticker() -> None:
        while True:
            await clock.sleep(10)
            ticks.append(clock.now_s())

    task = asyncio.create_task(ticker())
    await clock.advance(35)
    assert ticks == [1010, 1020, 1030]
    assert clock.monotonic_s() == 35
    task.cancel()
    await clock.advance(100)
    assert len(ticks) == 3


async def test_a_cancelled_sleeper_does_not_hold_time() -> None:
    clock = MockClock()

    async def work() -> float:
        with pytest.raises(TimeoutError):
            task = asyncio.create_task(clock.sleep(1000))
            await clock.sleep(1)
            task.cancel()
            raise TimeoutError
        await clock.sleep(2)
        return clock.monotonic_s()

    assert await clock.run(work()) == 3


async def test_waiting_for_nothing_is_named() -> None:
    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingSleeps, match="stuck"):
        await MockClock().run(stuck())


def test_the_wall_may_be_set_without_the_monotonic_clock_noticing() -> None:
    clock = MockClock(start_s=100.0)
    clock.step_wall(-50)
    assert (clock.now_s(), clock.monotonic_s()) == (50, 0)


async def test_the_real_clock_runs() -> None:
    clock = RealClock()
    before = clock.monotonic_s()
    await clock.sleep(-1)
    assert clock.monotonic_s() >= before
    assert clock.now_s() > 1_600_000_000


def test_ids_repeat_with_the_seed_and_avoid_what_is_taken() -> None:
    first, second = Ids(random.Random(7)), Ids(random.Random(7))
    names = [first.job(), first.snapshot(), first.token()]
    assert names == [second.job(), second.snapshot(), second.token()]
    assert [len(name) for name in names] == [8, 14, 32]
    taken = Ids(random.Random(3)).job()
    assert Ids(random.Random(3)).job(taken={taken}) != taken
    assert real_ids().token() != real_ids().token()
