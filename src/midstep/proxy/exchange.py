"""What one node sends another for a collective, and what it makes of what comes.

Both sides know which members are where, so a payload is only bytes: for reductions the node's largest whole
subtrees, in order; for the others the members' parts, sender by sender.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from midstep.mailbox.contract import Kind, ReduceOp
from midstep.proxy.arithmetic import kernel
from midstep.proxy.boxes import Posted
from midstep.proxy.errors import Mismatch
from midstep.proxy.groups import Group, Operation
from midstep.proxy.tree import Range, reduce, subtrees

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


def parts(array: Bytes, splits: Sequence[int], size: int) -> list[Bytes]:
    """Cut a buffer by its splits (none: ``size`` equal parts)."""
    if not splits:
        each = len(array) // size
        return [array[k * each : (k + 1) * each] for k in range(size)]
    out: list[Bytes] = []
    at = 0
    for n in splits:
        out.append(array[at : at + n])
        at += n
    return out


def partials(group: Group, op: Operation) -> dict[Range, Bytes]:
    """This node's largest whole subtrees of a reduction, computed once."""
    if op.partials is not None:
        return op.partials
    post = next(iter(op.arrived.values()))
    leaves = leaves_of(op)
    result: dict[Range, Bytes] = {}
    for low, high in subtrees(group.size, group.local):
        if high - low == 1:
            result[low, high] = leaves[low, high]
            continue
        out = np.empty(post.body.in_len, np.uint8)
        inside = {key: leaf for key, leaf in leaves.items() if low <= key[0] < high}
        reduce(kernel(post.body.dtype, post.body.reduce), inside, (low, high), [out], 1)
        result[low, high] = out
    op.partials = result
    return result


def leaves_of(op: Operation) -> dict[Range, Bytes]:
    """The local members' inputs as leaves of the tree."""
    leaves: dict[Range, Bytes] = {}
    for me, post in op.arrived.items():
        source = post.source
        if post.body.reduce == ReduceOp.PREMUL_SUM:
            source = kernel(post.body.dtype, post.body.reduce).scale(source, post.body.scale)
        leaves[me, me + 1] = source
    return leaves


def payload(group: Group, op: Operation, node: int) -> list[Bytes]:
    """What another node needs of this one."""
    theirs = group.remote[node]
    posts = sorted(op.arrived.items())
    body = posts[0][1].body
    kind, root = body.kind, body.root
    if kind == Kind.ALLREDUCE or (kind == Kind.REDUCE and root in theirs):
        return list(partials(group, op).values())
    if kind == Kind.REDUCE_SCATTER:
        splits = posts[0][1].box.numbers(body)[0]
        rows = [parts(piece, splits, group.size) for piece in partials(group, op).values()]
        return [row[me] for row in rows for me in theirs]
    if kind == Kind.ALLGATHER or (kind == Kind.GATHER and root in theirs):
        return [post.source for _, post in posts]
    if kind == Kind.BROADCAST and root in op.arrived:
        return [op.arrived[root].source]
    if kind == Kind.SCATTER and root in op.arrived:
        post = op.arrived[root]
        row = parts(post.source, post.box.numbers(post.body)[0], group.size)
        return [row[me] for me in theirs]
    if kind == Kind.ALLTOALL:
        rows = [parts(post.source, post.box.numbers(post.body)[0], group.size) for _, post in posts]
        return [row[me] for row in rows for me in theirs]
    return []


class Reader:
    """Takes a payload apart."""

    def __init__(self, data: Bytes, whose: str) -> None:
        self._data = data
        self._at = 0
        self._whose = whose

    def take(self, nbytes: int) -> Bytes:
        piece = self._data[self._at : self._at + nbytes]
        self._at += nbytes
        if len(piece) != nbytes:
            raise Mismatch(f"{self._whose} sent {len(self._data)} bytes, this rank expects more")
        return piece

    def end(self) -> None:
        if self._at != len(self._data):
            raise Mismatch(f"{self._whose} sent {len(self._data)} bytes, this rank expects {self._at}")


def reader(group: Group, op: Operation, node: int) -> Reader:
    """The frame of a node, to be taken apart."""
    ranks = ", ".join(str(group.ranks[me]) for me in group.remote[node])
    return Reader(op.frames[node][1], f"{group.title()}, operation {op.seq}: rank {ranks}")


def out_splits(post: Posted, size: int) -> list[int]:
    """By sender, how many bytes an ALLTOALL's member expects."""
    given = post.box.numbers(post.body)[1]
    return given or [post.body.out_len // size] * size
