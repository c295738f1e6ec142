"""Carrying out one complete operation: outputs are written here, states elsewhere. Raises Mismatch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from midstep.mailbox.contract import Kind, ReduceOp
from midstep.proxy.arithmetic import kernel
from midstep.proxy.errors import Mismatch
from midstep.proxy.exchange import leaves_of, out_splits, partials, parts, reader
from midstep.proxy.groups import Group, Operation
from midstep.proxy.tree import Range, reduce, subtrees

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


def execute(group: Group, op: Operation) -> None:
    """Write the outputs of every local member."""
    body = next(iter(op.arrived.values())).body
    run = _RUN.get(body.kind)
    if run is not None:
        run(group, op)


def _pieces(group: Group, op: Operation, columns: tuple[int, ...] | None) -> dict[Range, list[Bytes]]:
    """The subtrees of a reduction, each cut to the ``columns`` (members' parts) or whole."""
    body = next(iter(op.arrived.values())).body
    splits = next(iter(op.arrived.values())).box.numbers(body)[0] if columns is not None else []
    mine = partials(group, op) if group.remote else leaves_of(op)
    result: dict[Range, list[Bytes]] = {}
    for key, piece in mine.items():
        if columns is None:
            result[key] = [piece]
        else:
            row = parts(piece, splits, group.size)
            result[key] = [row[me] for me in columns]
    sizes = [body.in_len] if columns is None else [op.arrived[me].body.out_len for me in columns]
    for node, members in group.remote.items():
        source = reader(group, op, node)
        for key in subtrees(group.size, members):
            result[key] = [source.take(n) for n in sizes]
        source.end()
    return result


def _uncut(group: Group, op: Operation) -> dict[Range, Bytes]:
    if not group.remote:
        return leaves_of(op)
    return {key: row[0] for key, row in _pieces(group, op, None).items()}


def _divisor(group: Group, reduce_op: int) -> int:
    return group.size if reduce_op == ReduceOp.AVG else 1


def _allreduce(group: Group, op: Operation) -> None:
    body = next(iter(op.arrived.values())).body
    outs = [post.out for post in op.arrived.values()]
    pieces = _uncut(group, op)
    reduce(kernel(body.dtype, body.reduce), pieces, (0, group.size), outs, _divisor(group, body.reduce))


def _reduce(group: Group, op: Operation) -> None:
    body = next(iter(op.arrived.values())).body
    if body.root not in op.arrived:
        return
    pieces = _uncut(group, op)
    outs = [op.arrived[body.root].out]
    reduce(kernel(body.dtype, body.reduce), pieces, (0, group.size), outs, _divisor(group, body.reduce))


def _reduce_scatter(group: Group, op: Operation) -> None:
    body = next(iter(op.arrived.values())).body
    columns = group.local
    pieces = _pieces(group, op, columns)
    for k, me in enumerate(columns):
        column = {key: row[k] for key, row in pieces.items()}
        outs = [op.arrived[me].out]
        reduce(kernel(body.dtype, body.reduce), column, (0, group.size), outs, _divisor(group, body.reduce))


def _broadcast(group: Group, op: Operation) -> None:
    root = next(iter(op.arrived.values())).body.root
    source: Bytes
    if root in op.arrived:
        source = op.arrived[root].source
    else:
        source = op.frames[group.node_of[root]][1]
    for me, post in op.arrived.items():
        if me != root:
            _put(post.out, source, group, op)


def _gather(group: Group, op: Operation) -> None:
    body = next(iter(op.arrived.values())).body
    takers = [p for me, p in op.arrived.items() if body.kind == Kind.ALLGATHER or me == body.root]
    if not takers:
        return
    rows = [parts(post.out, post.box.numbers(post.body)[0], group.size) for post in takers]
    sources = {me: post.source for me, post in op.arrived.items()}
    for node, members in group.remote.items():
        data = reader(group, op, node)
        for me in members:
            sources[me] = data.take(len(rows[0][me]))
        data.end()
    for row in rows:
        for me in range(group.size):
            _put(row[me], sources[me], group, op)


def _scatter(group: Group, op: Operation) -> None:
    root = next(iter(op.arrived.values())).body.root
    if root in op.arrived:
        post = op.arrived[root]
        row = parts(post.source, post.box.numbers(post.body)[0], group.size)
        for me, member in op.arrived.items():
            _put(member.out, row[me], group, op)
        return
    data = reader(group, op, group.node_of[root])
    for me in group.local:
        out = op.arrived[me].out
        _put(out, data.take(len(out)), group, op)
    data.end()


def _alltoall(group: Group, op: Operation) -> None:
    size = group.size
    outs = {me: parts(post.out, out_splits(post, size), size) for me, post in op.arrived.items()}
    for sender, post in op.arrived.items():
        row = parts(post.source, post.box.numbers(post.body)[0], size)
        for me, columns in outs.items():
            _put(columns[sender], row[me], group, op)
    chunks = max(post.body.chunks for post in op.arrived.values())
    for node, members in group.remote.items():
        data = reader(group, op, node)
        for sender in members:
            for me in group.local:
                column = outs[me][sender]
                _put(column, data.take(len(column)), group, op)
        data.end()
        chunks = max(chunks, op.frames[node][0].chunks)
    for post in op.arrived.values():
        post.box.answer(post.slot, -1, chunks)


def _put(out: Bytes, source: Bytes, group: Group, op: Operation) -> None:
    if len(out) != len(source):
        raise Mismatch(
            f"{group.title()}, operation {op.seq}: "
            f"a rank expects {len(out)} bytes and another gives {len(source)}"
        )
    out[:] = source


_RUN: dict[int, Callable[[Group, Operation], None]] = {
    Kind.ALLREDUCE: _allreduce,
    Kind.REDUCE: _reduce,
    Kind.REDUCE_SCATTER: _reduce_scatter,
    Kind.BROADCAST: _broadcast,
    Kind.ALLGATHER: _gather,
    Kind.GATHER: _gather,
    Kind.SCATTER: _scatter,
    Kind.ALLTOALL: _alltoall,
}
