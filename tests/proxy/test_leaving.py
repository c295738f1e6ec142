"""A rank that has all it was owed may leave at once: nobody's operation fails or hangs for it, in whatever
order the nodes come to handle things, and whichever proxy is killed when.
"""

from __future__ import annotations

import numpy as np
import pytest

from midstep.mailbox.contract import ChannelError, Kind, Op, Ticket
from midstep.mailbox.layout import State
from tests.proxy.programs import Array, allreduce, buffer, data, tree_sum, world
from tests.proxy.stepped import Nodes


def opened(nodes: Nodes) -> int:
    """The group of all ranks, known to every node."""
    (gid,) = {world(channel, rank, nodes.size) for rank, channel in enumerate(nodes.channels)}
    nodes.run()
    return gid


def leave(nodes: Nodes, gid: int, rank: int, how: str) -> None:
    if "closes" in how:
        nodes.channels[rank].close_group(gid)
    if "ends" in how:
        nodes.leave(rank)


def received(nodes: Nodes, gid: int) -> Ticket:
    """Rank 1 sends, rank 0 has received and does not know that anybody waits; the SEND's ticket."""
    sent, got = data(1, 1, 100), np.zeros(100, np.float32)
    sending = nodes.channels[1].post(Op(Kind.SEND, gid, peer=0, tag=9), buffer(sent), None)
    receiving = nodes.channels[0].post(Op(Kind.RECV, gid, peer=-1, tag=9), None, buffer(got))
    nodes.look(1, 0)
    nodes.carry(1, 0)
    receiving.wait(0)
    assert got.tobytes() == sent.tobytes() and not sending.done()
    return sending


def reduced(nodes: Nodes, gid: int) -> tuple[Ticket, Array]:
    """Rank 0 has its sum, the other node has not handled rank 0's part; the last rank's ticket and array."""
    arrays = [data(1, rank, 100) for rank in range(nodes.size)]
    tickets = [allreduce(channel, gid, array) for channel, array in zip(nodes.channels, arrays, strict=True)]
    nodes.look(0, 1)
    nodes.carry(1, 0)
    tickets[0].wait(0)
    assert not tickets[-1].done()
    return tickets[-1], arrays[-1]


@pytest.mark.parametrize("how", ["closes", "ends", "closes and ends"])
def test_a_receiver_that_leaves_at_once_does_not_fail_the_send(how: str) -> None:
    """Its node handles the receipt and the leaving in one go, before it was ever idle."""
    with Nodes([[0], [1]]) as nodes:
        gid = opened(nodes)
        sending = received(nodes, gid)
        leave(nodes, gid, 0, how)
        nodes.run()
        sending.wait(0)


@pytest.mark.parametrize("how", ["closes", "ends", "closes and ends"])
@pytest.mark.parametrize("lost", ["before", "after"])
def test_the_receipt_is_said_again_to_a_new_proxy(how: str, lost: str) -> None:
    with Nodes([[0], [1]]) as nodes:
        gid = opened(nodes)
        sending = received(nodes, gid)
        if lost == "before":
            nodes.replace(1)
        leave(nodes, gid, 0, how)
        nodes.look(0)
        nodes.idle(0)
        if lost == "after":
            nodes.replace(1)
        nodes.run()
        sending.wait(0)
        assert "ends" not in how or not nodes.engines[0].membership.groups


@pytest.mark.parametrize("how", ["closes", "ends", "closes and ends"])
def test_a_result_is_said_again_to_a_new_proxy(how: str) -> None:
    with Nodes([[0], [1]]) as nodes:
        gid = opened(nodes)
        ticket, array = reduced(nodes, gid)
        leave(nodes, gid, 0, how)
        nodes.look(0)
        nodes.idle(0)
        nodes.replace(1)
        nodes.run()
        ticket.wait(0)
        assert array.tobytes() == tree_sum([data(1, rank, 100) for rank in range(2)]).tobytes()
        assert "ends" not in how or not nodes.engines[0].membership.groups


@pytest.mark.parametrize("index", [0, 1])
def test_a_closed_group_goes_on_until_every_node_has_the_result(index: int) -> None:
    """Its own proxy is killed twice before the other node was told anything."""
    with Nodes([[0, 1], [2]]) as nodes:
        gid = opened(nodes)
        ticket, array = reduced(nodes, gid)
        nodes.channels[0].close_group(gid)
        nodes.look(0)
        for _ in range(2):
            nodes.replace(index)
            nodes.idle(0, 1)
        nodes.run()
        ticket.wait(0)
        assert array.tobytes() == tree_sum([data(1, rank, 100) for rank in range(3)]).tobytes()
        assert nodes.engines[0].membership.groups and not nodes.engines[0].boxes[0].slots_in(State.CLOSED)


@pytest.mark.parametrize("first", [0, 1])
def test_what_was_posted_before_the_group_was_closed_is_carried_out(first: int) -> None:
    """A new proxy reads the closing before the posts."""
    with Nodes([[0, 1], [2]]) as nodes:
        gid = opened(nodes)
        arrays = [data(1, rank, 100) for rank in range(3)]
        tickets = [
            allreduce(channel, gid, array) for channel, array in zip(nodes.channels, arrays, strict=True)
        ]
        nodes.channels[first].close_group(gid)
        nodes.replace(0)
        nodes.run()
        tickets[1 - first].wait(0)
        tickets[2].wait(0)


@pytest.mark.parametrize("how", ["closes", "ends"])
def test_a_rank_that_still_owes_something_fails_who_waits_for_it(how: str) -> None:
    with Nodes([[0], [1]]) as nodes:
        gid = opened(nodes)
        waiting = allreduce(nodes.channels[1], gid, data(1, 1, 100))
        sending = nodes.channels[1].post(Op(Kind.SEND, gid, peer=0), buffer(data(1, 1, 100)), None)
        nodes.run()
        leave(nodes, gid, 0, how)
        nodes.run()
        for ticket in (waiting, sending):
            with pytest.raises(ChannelError, match="rank 0 cannot take part"):
                ticket.wait(0)


@pytest.mark.parametrize("index", [0, 1])
def test_the_others_go_on_under_a_new_proxy_though_a_rank_has_ended(index: int) -> None:
    """What they exchange needs nobody else; what needs the one that has ended fails."""
    with Nodes([[0, 1], [2]]) as nodes:
        gid = opened(nodes)
        nodes.leave(0)
        nodes.run()
        nodes.replace(index)
        nodes.run()
        sent, got = data(1, 2, 100), np.zeros(100, np.float32)
        sending = nodes.channels[2].post(Op(Kind.SEND, gid, peer=1), buffer(sent), None)
        receiving = nodes.channels[1].post(Op(Kind.RECV, gid, peer=2), None, buffer(got))
        waiting = allreduce(nodes.channels[2], gid, data(1, 2, 100))
        nodes.run()
        sending.wait(0)
        receiving.wait(0)
        assert got.tobytes() == sent.tobytes()
        with pytest.raises(ChannelError, match="rank 0 cannot take part"):
            waiting.wait(0)
