"""All-reduces in place whose memory stays where it is: the slot says where, the proxy works on it there.

Nothing is copied into the mailbox but a journal: what is about to be written over the inputs, in pieces, and
how far that has come, so that another proxy can go on from any instant. Only where the proxy has said that it
can (all members on its node, ``process_vm_readv`` allowed), and if that has changed meanwhile, the proxy asks
for the same operation in chunks. The operation is over when its slot is RELEASED. Standard library only.

A block: one word a lane (twice the pieces that are done, odd while the next one is being written from the
journal), then from JOURNAL_AT one piece a lane. Lane L of N has the pieces L, L + N, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from .contract import Kind, Op, ReduceOp
from .core import Core, Pair
from .cut import Cut
from .layout import JOURNAL_AT, PIECE_BYTES, lanes_of

if TYPE_CHECKING:
    from .channel import Member

_REDUCES = (ReduceOp.SUM, ReduceOp.AVG, ReduceOp.PRODUCT, ReduceOp.MIN, ReduceOp.MAX)


def may_stay(core: Core, op: Op, member: "Member", plan: Cut) -> bool:
    """Whether an operation's memory can stay in place."""
    if op.kind != Kind.ALLREDUCE or plan.chunks == 1 or plan.ins != plan.outs:
        return False
    pair = member.pair if op.reduce in _REDUCES else None
    return pair is not None and core.result(pair)[1] == member.gid


def post_in_place(core: Core, op: Op, member: "Member", seq: int, plan: Cut) -> Optional[Pair]:
    """Post it whole; None while every slot is in use."""
    address, nbytes = plan.ins[0]
    lanes = lanes_of(nbytes)
    room = JOURNAL_AT + lanes * PIECE_BYTES
    with core.lock:
        pair = core.take(room)
        if pair is None:
            return None
        stamp = core.stamp()
    # The order is layout.Body's.
    head = (op.gid, seq, stamp, 0, 1, op.kind, op.dtype, op.reduce, op.root, op.peer, op.tag)
    core.fill(pair, (*head, nbytes, pair.block, 0, room, op.scale, 0, 0, 0, address), (), [0] * lanes)
    core.push(pair)
    return pair
