"""One reduction, wherever its ranks are: real engines, of nodes drawn at random, give the bits of the tree.

What `docs/internals/canonical-reduction.md` proves, tried on element types, reductions, kinds of operation,
sizes and uneven parts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.mailbox.contract import DType, Kind, Op, ReduceOp, Ticket
from midstep.mailbox.layout import CHUNK_BYTES
from midstep.proxy.arithmetic import Bytes, kernel
from midstep.proxy.errors import Mismatch
from midstep.proxy.tree import split
from tests.proxy.programs import buffer, world
from tests.proxy.stepped import Nodes

WIDTHS = {dtype: int(re.sub(r"_.*|\D", "", dtype.name) or 8) // 8 for dtype in DType}  # bytes
KINDS = (Kind.ALLREDUCE, Kind.REDUCE, Kind.REDUCE_SCATTER)


@dataclass(frozen=True)
class Case:
    """``node_of``: by rank. ``counts``: elements of each rank's part, for REDUCE_SCATTER; else their sum
    counts."""

    node_of: tuple[int, ...]
    kind: Kind
    dtype: DType
    reduce: ReduceOp
    counts: tuple[int, ...]
    seed: int
    root: int

    @property
    def placement(self) -> list[list[int]]:
        nodes = sorted(set(self.node_of))
        return [[rank for rank, node in enumerate(self.node_of) if node == one] for one in nodes]

    def inputs(self) -> list[Bytes]:
        """By rank, numbers of all sizes as bytes: sums of random bits round at every step."""
        rng = np.random.default_rng(self.seed)
        nbytes = sum(self.counts) * WIDTHS[self.dtype]
        high = 2 if self.dtype == DType.bool else 256
        return [_numbers(rng.integers(0, high, nbytes, np.uint8), self.dtype) for _ in self.node_of]


def _numbers(raw: Bytes, dtype: DType) -> Bytes:
    """Any bits but those of "not a number": of two such operands, which one a sum is, is not defined."""
    lower = {DType.float8_e4m3fn: 1, DType.float8_e5m2: 1, DType.bfloat16: 2, DType.complex32: 2}
    width = lower.get(dtype) or (WIDTHS[dtype] // 2 if "complex" in dtype.name else WIDTHS[dtype])
    if "float" in dtype.name or "complex" in dtype.name:
        raw[width - 1 :: width] &= 0xBF  # the highest bit of the exponent
    return raw


def legal(dtype: DType, reduce: ReduceOp) -> bool:
    try:
        kernel(dtype, reduce)
    except Mismatch:
        return False
    return True


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(list(DType)))
    return Case(
        tuple(draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))),
        draw(st.sampled_from(KINDS)),
        dtype,
        draw(st.sampled_from([op for op in ReduceOp if legal(dtype, op)])),
        tuple(draw(st.lists(st.integers(0, 40), min_size=size, max_size=size))),
        draw(st.integers(0, 2**32)),
        draw(st.integers(0, size - 1)),
    )


def by_the_tree(case: Case) -> Bytes:
    """Each element's sum written down again: from the root to the leaves, two operands at a time."""
    arithmetic = kernel(case.dtype, case.reduce)
    leaves = case.inputs()
    if case.reduce == ReduceOp.PREMUL_SUM:
        leaves = [arithmetic.scale(leaf, 0.5) for leaf in leaves]

    def value(low: int, high: int) -> Bytes:
        if high - low == 1:
            return leaves[low]
        middle = split(low, high)
        out = np.empty_like(leaves[0])
        arithmetic.combine(value(low, middle), value(middle, high), out)
        return out

    whole = value(0, len(leaves)).copy()
    if case.reduce == ReduceOp.AVG and len(leaves) > 1:
        arithmetic.divide(whole, len(leaves))
    return whole


def wanted(case: Case) -> list[bytes]:
    """By rank; empty for those who get nothing."""
    whole, width = by_the_tree(case), WIDTHS[case.dtype]
    ranks = range(len(case.node_of))
    if case.kind == Kind.ALLREDUCE:
        return [whole.tobytes() for _ in ranks]
    if case.kind == Kind.REDUCE:
        return [whole.tobytes() if rank == case.root else b"" for rank in ranks]
    ends = np.cumsum([n * width for n in case.counts]).tolist()
    return [whole[end - n * width : end].tobytes() for n, end in zip(case.counts, ends, strict=True)]


def found(case: Case) -> list[bytes]:
    """What the nodes' engines make of it."""
    inputs, width = case.inputs(), WIDTHS[case.dtype]
    outs = [_room(case, rank, len(inputs[0]), width) for rank in range(len(inputs))]
    splits = tuple(n * width for n in case.counts) if case.kind == Kind.REDUCE_SCATTER else ()
    with Nodes(case.placement) as nodes:
        gids = [world(channel, rank, nodes.size) for rank, channel in enumerate(nodes.channels)]
        op = Op(case.kind, gids[0], case.dtype, case.reduce, root=case.root, scale=0.5, splits=splits)
        posted = zip(nodes.channels, inputs, outs, strict=True)
        _finish(nodes, [channel.post(op, buffer(mine), buffer(out)) for channel, mine, out in posted])
    return [out.tobytes() for out in outs]


def _room(case: Case, rank: int, nbytes: int, width: int) -> Bytes:
    if case.kind == Kind.REDUCE_SCATTER:
        nbytes = case.counts[rank] * width
    elif case.kind == Kind.REDUCE and rank != case.root:
        nbytes = 0
    return np.zeros(nbytes, np.uint8)


def _finish(nodes: Nodes, tickets: Sequence[Ticket]) -> None:
    for _ in range(5000):  # chunks are fed by the ranks' own threads
        nodes.run()
        if all(ticket.done() for ticket in tickets):
            break
        time.sleep(0.001)
    for ticket in tickets:
        ticket.wait(0)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_every_placement_gives_the_bits_of_the_tree(case: Case) -> None:
    assert found(case) == wanted(case)


@pytest.mark.parametrize("node_of", [(0, 0, 0), (0, 1, 0), (1, 0, 0, 2, 0)], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_chunks_change_nothing(node_of: tuple[int, ...], kind: Kind) -> None:
    """More than a chunk, and parts that end anywhere in one."""
    elements = CHUNK_BYTES // 4
    counts = [elements + 3, 0, 2 * elements - 1, 5, 1][: len(node_of)]
    case = Case(node_of, kind, DType.float32, ReduceOp.AVG, tuple(counts), 11, 1)
    assert found(case) == wanted(case)
