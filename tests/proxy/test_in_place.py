"""All-reduces whose memory stays in the ranks: killed at every instant, moved, refused."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midstep.mailbox.channel import MailboxChannel
from midstep.mailbox.contract import ReduceOp, Ticket
from midstep.mailbox.layout import PIECE_BYTES
from midstep.mailbox.tickets import Large
from midstep.proxy import memory
from midstep.proxy.boxes import Box
from midstep.proxy.engine import Engine
from midstep.proxy.memory import Transfer
from tests.proxy.harness import Fleet
from tests.proxy.programs import allreduce, data, tree_sum, world

SIZE = 3
COUNT = (10 * PIECE_BYTES + 404) // 4
SEED = 7


class Killed(BaseException):
    """The proxy was killed at this place."""


class Node:
    """Ranks and a proxy's engine in this process; the ranks' memory is reached as another process's."""

    def __init__(self) -> None:
        self.channels = [MailboxChannel(rank, SIZE) for rank in range(SIZE)]
        self.gids = [world(channel, rank, SIZE) for rank, channel in enumerate(self.channels)]
        self.start_proxy()

    def start_proxy(self) -> None:
        self.engine = Engine(0, None)
        for rank in range(SIZE):
            self.engine.membership.place(rank, 0)
        for rank, channel in enumerate(self.channels):
            self.engine.attach(Box(os.dup(channel.core.file.fd), rank, 1, os.getpid()))

    def post(self, op: ReduceOp = ReduceOp.SUM) -> tuple[list[Any], list[Ticket]]:
        arrays = [data(SEED, rank, COUNT) for rank in range(SIZE)]
        posted = zip(self.channels, self.gids, arrays)
        return arrays, [allreduce(channel, gid, array, op) for channel, gid, array in posted]

    def settle(self, tickets: list[Ticket]) -> None:
        """Let the proxy do all that it can, and see what the ranks make of it."""
        for _ in range(2000):  # a rank's own thread may be the one that notices
            self.engine.settle()
            if all(ticket.done() for ticket in tickets):
                return
            time.sleep(0.001)

    def close(self) -> None:
        for channel in self.channels:
            channel.close()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(memory, "_MOST_HELPERS", 0)
    here = Node()
    yield here
    here.close()


def in_place(tickets: list[Ticket]) -> list[bool]:
    return [isinstance(ticket, Large) and ticket.whole_slot is not None for ticket in tickets]


def expected() -> bytes:
    return tree_sum([data(SEED, rank, COUNT) for rank in range(SIZE)]).tobytes()


def test_nothing_is_copied_into_the_mailbox(node: Node) -> None:
    arrays, tickets = node.post()
    assert in_place(tickets) == [True] * SIZE
    node.settle(tickets)
    assert all(ticket.done() for ticket in tickets)
    assert [array.tobytes() for array in arrays] == [expected()] * SIZE


def test_an_average_is_divided_once(node: Node) -> None:
    arrays, tickets = node.post(ReduceOp.AVG)
    node.settle(tickets)
    total = tree_sum([data(SEED, rank, COUNT) for rank in range(SIZE)])
    assert [array.tobytes() for array in arrays] == [(total / SIZE).astype("f4").tobytes()] * SIZE


def _dies(calls: list[int], method: Callable[..., Any], after: bool) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls[0] -= 1
        if calls[0] == 0 and not after:
            raise Killed
        method(*args)
        if calls[0] == 0:
            raise Killed

    return call


@pytest.mark.parametrize("after", [False, True])
def test_a_proxy_killed_at_any_instant_leaves_what_another_goes_on_from(
    node: Node, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    calls = [0]
    for owner, names in ((Transfer, ("read", "write")), (Box, ("answer", "finish", "release", "wake"))):
        for name in names:
            monkeypatch.setattr(owner, name, _dies(calls, getattr(owner, name), after))
    moment, killed = 0, True
    while killed:
        moment += 1
        arrays, tickets = node.post()
        calls[0], killed = moment, False
        try:
            node.settle(tickets)
        except Killed:
            killed = True
        calls[0] = 0
        while killed and not all(ticket.done() for ticket in tickets):
            node.start_proxy()
            node.settle(tickets)
        assert [array.tobytes() for array in arrays] == [expected()] * SIZE, f"killed at call {moment}"
    assert moment > 6 * (2 * SIZE)  # every read and write of every piece was one


def test_where_memory_cannot_be_read_it_is_copied(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(Transfer, "read", refused)
    for _ in range(2):  # the second is posted in chunks from the beginning
        arrays, tickets = node.post()
        node.settle(tickets)
        assert [array.tobytes() for array in arrays] == [expected()] * SIZE
    assert in_place(node.post()[1]) == [False] * SIZE


@pytest.mark.parametrize("seed", [1])
async def test_a_job_goes_to_other_nodes_and_back(tmp_path: Path, seed: int) -> None:
    rng, steps = random.Random(seed), 30
    async with Fleet(tmp_path, [[0, 1, 2]]) as fleet:
        await fleet.start_ranks("tests.proxy.programs:sums", 1_500_000, steps, 0.01)
        await fleet.start_proxies()
        results = asyncio.create_task(fleet.results(120))
        for placement in ([[0, 1], [2]], [[0, 1, 2]], [[0], [1], [2]], [[2, 0, 1]]):
            await asyncio.sleep(0.2 + rng.random() * 0.2)
            if rng.random() < 0.5 and fleet.running():
                await fleet.kill_proxy(0)
                await fleet.replace_proxy(0)
            await move(fleet, placement)
        got = await results
    want = [tree_sum([data(step, rank, 1_500_000) for rank in range(3)]) for step in range(steps)]
    assert got == [[bytes(one.view("u1")[::997]) for one in want]] * 3


async def move(fleet: Fleet, placement: list[list[int]]) -> None:
    """A cut, after which the ranks are elsewhere."""
    await fleet.freeze()
    drained = await asyncio.gather(*(proxy.drain(60) for proxy in fleet.proxies))
    await asyncio.gather(*(proxy.stop() for proxy in fleet.proxies))
    fleet.store = next(one.store for one in drained if one.store is not None)
    fleet.placement = [tuple(ranks) for ranks in placement]
    await fleet.start_proxies()
    fleet.thaw()
