"""What every Channel does. The in-memory one runs it in threads, the mailbox in processes beside a real
proxy.

A case is a function ``case(channel, rank, size)`` that checks for itself and returns something picklable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midstep.mailbox.contract import Channel, ChannelError, ChannelTimeout, DType, Kind, Op, ReduceOp
from midstep.mailbox.memory import MemoryHub
from tests.proxy.harness import Fleet
from tests.proxy.programs import (
    WAIT_S,
    allreduce,
    check_pairs,
    check_parts,
    check_rooted,
    data,
    tree_sum,
    world,
)

Case = Callable[[Channel, int, int], Any]
CASES: list[str] = []


def case(fn: Case) -> Case:
    CASES.append(fn.__name__)
    return fn


@case
def reductions_follow_the_tree(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    for op, dtype, combine in (
        (ReduceOp.SUM, "float32", np.add),
        (ReduceOp.PRODUCT, "float64", np.multiply),
        (ReduceOp.MAX, "int64", np.maximum),
        (ReduceOp.BXOR, "uint8", np.bitwise_xor),
    ):
        got = data(1, rank, 1000, dtype)
        allreduce(channel, gid, got, op).wait(WAIT_S)
        assert got.tobytes() == tree_sum([data(1, r, 1000, dtype) for r in range(size)], combine).tobytes()


@case
def rooted_kinds(channel: Channel, rank: int, size: int) -> None:
    check_rooted(channel, world(channel, rank, size), rank, size, 100)


@case
def kinds_with_parts(channel: Channel, rank: int, size: int) -> None:
    check_parts(channel, world(channel, rank, size), rank, size, 100)


@case
def sends_and_receives(channel: Channel, rank: int, size: int) -> None:
    check_pairs(channel, world(channel, rank, size), rank, size, 100)


@case
def empty_buffers(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    channel.post(Op(Kind.ALLREDUCE, gid, DType.float32), None, None).wait(WAIT_S)
    channel.post(Op(Kind.ALLGATHER, gid), None, None).wait(WAIT_S)
    channel.post(Op(Kind.BARRIER, gid), None, None).wait(WAIT_S)


@case
def callbacks_run_once_when_done(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    for count in (10, 700_000 if size == 1 else 20):
        array, seen, first, second = data(1, rank, count), list[int](), threading.Event(), threading.Event()
        ticket = allreduce(channel, gid, array)
        ticket.add_done_callback(lambda seen=seen, first=first: (seen.append(1), first.set()))
        ticket.add_done_callback(
            second.set
        )  # perhaps at once, by this thread, while the pump calls the other
        assert first.wait(WAIT_S) and second.wait(WAIT_S) and ticket.done() and seen == [1]
        ticket.add_done_callback(lambda seen=seen: seen.append(2))
        assert seen == [1, 2]
        assert array.tobytes() == tree_sum([data(1, r, count) for r in range(size)]).tobytes()
        ticket.wait(0)


@case
def operations_may_overlap(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    arrays = [data(k, rank, 50) for k in range(30)]
    tickets = [allreduce(channel, gid, array) for array in arrays]
    for ticket in reversed(tickets):
        ticket.wait(WAIT_S)
    for k, array in enumerate(arrays):
        assert array.tobytes() == tree_sum([data(k, r, 50) for r in range(size)]).tobytes()


@case
def a_wait_has_an_end(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    array = data(1, rank, 10)
    if rank == 0:
        ticket = allreduce(channel, gid, array)
        with pytest.raises(ChannelTimeout, match="ALLREDUCE"):
            ticket.wait(0.05)
        channel.store_set("late", b"1")
    else:
        channel.store_wait(["late"], WAIT_S)
        ticket = allreduce(channel, gid, array)
    ticket.wait(WAIT_S)
    assert array.tobytes() == tree_sum([data(1, r, 10) for r in range(size)]).tobytes()


@case
def contradictions_fail_everybody(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size)
    with pytest.raises(ChannelError, match=r"the ranks do not agree.*rank"):
        allreduce(channel, gid, data(1, rank, 10 + (rank == 0))).wait(WAIT_S)
    array = data(1, rank, 10)
    allreduce(channel, gid, array).wait(WAIT_S)


@case
def an_unknown_group_is_refused(channel: Channel, rank: int, size: int) -> None:
    gid = world(channel, rank, size, "closed")
    channel.post(Op(Kind.BARRIER, gid), None, None).wait(WAIT_S)
    channel.close_group(gid)
    with pytest.raises(ChannelError, match="no group"):
        channel.post(Op(Kind.BARRIER, gid), None, None)


@case
def groups_have_the_same_number_everywhere(channel: Channel, rank: int, size: int) -> int:
    return channel.open_group("env://", "x", list(range(size)), rank)


@case
def the_store(channel: Channel, rank: int, size: int) -> None:
    total = channel.store_add("count", rank + 1)
    assert 1 <= total <= size * (size + 1) // 2
    channel.store_set(f"key/{rank}", b"v%d" % rank)
    channel.store_wait([f"key/{r}" for r in range(size)], WAIT_S)
    assert [channel.store_get(f"key/{r}", WAIT_S) for r in range(size)] == [b"v%d" % r for r in range(size)]
    assert channel.store_add("count", 0) == size * (size + 1) // 2
    assert channel.store_check(["key/0"]) and not channel.store_check(["key/0", "none"])
    assert channel.store_num_keys("key/") == size
    channel.store_set(f"seen/{rank}", b"")
    channel.store_wait([f"seen/{r}" for r in range(size)], WAIT_S)
    winner = channel.store_compare_set("lock", b"", b"%d" % rank)
    assert channel.store_compare_set("lock", b"-", b"x") == winner == channel.store_get("lock", WAIT_S)
    assert channel.store_delete(f"key/{rank}") and not channel.store_delete(f"key/{rank}")
    channel.store_append(f"list/{rank}", b"ab")
    channel.store_append(f"list/{rank}", b"c" * 100_000)
    assert channel.store_get(f"list/{rank}", WAIT_S) == b"ab" + b"c" * 100_000
    with pytest.raises(ChannelTimeout, match="never"):
        channel.store_get("never", 0.02)


def in_threads(fn: Case, size: int) -> list[Any]:
    hub, results, errors = MemoryHub(), [None] * size, list[BaseException]()

    def run(rank: int) -> None:
        try:
            results[rank] = fn(hub.channel(), rank, size)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("name", CASES)
def test_in_memory(name: str) -> None:
    results = in_threads(globals()[name], 3)
    assert len(set(results)) == 1


@pytest.mark.parametrize("placement", [[[0, 1, 2]], [[0, 2], [1]]], ids=str)
async def test_mailbox(tmp_path: Path, placement: list[list[int]]) -> None:
    async with Fleet(tmp_path, placement) as fleet:
        results = await fleet.run("tests.mailbox.test_contract:in_turn")
    assert all(one == results[0] for one in results)


def in_turn(channel: Channel, rank: int, size: int) -> list[Any]:
    """All cases, by the same ranks."""
    return [globals()[name](channel, rank, size) for name in CASES]
