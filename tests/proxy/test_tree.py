"""The canonical reduction: any partition of ranks to nodes gives the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.mailbox.contract import DType, ReduceOp
from midstep.proxy.arithmetic import kernel
from midstep.proxy.errors import Mismatch
from midstep.proxy.tree import Range, reduce, split, subtrees

Array = np.ndarray[Any, Any]
TORCH_ONLY = [DType.float16, DType.bfloat16, DType.float8_e4m3fn, DType.float8_e5m2, DType.complex32]


def as_bytes(array: Array) -> Array:
    return array.view(np.uint8)


def reference(parts: list[Array], low: int, high: int) -> Array:
    if high - low == 1:
        return parts[low]
    middle = split(low, high)
    return reference(parts, low, middle) + reference(parts, middle, high)


def over_nodes(parts: list[Array], node_of: list[int], op: ReduceOp = ReduceOp.SUM) -> bytes:
    """Reduce as proxies do: each node its subtrees, then all pieces."""
    arithmetic, size = kernel(DType.float32, op), len(parts)
    pieces: dict[Range, Array] = {}
    for node in set(node_of):
        members = tuple(me for me in range(size) if node_of[me] == node)
        for low, high in subtrees(size, members):
            leaves = {(me, me + 1): as_bytes(parts[me]) for me in range(low, high)}
            out = np.zeros(parts[0].nbytes, np.uint8)
            reduce(arithmetic, leaves, (low, high), [out], 1)
            pieces[low, high] = out
    result = np.zeros(parts[0].nbytes, np.uint8)
    reduce(arithmetic, pieces, (0, size), [result], size if op == ReduceOp.AVG else 1)
    return result.tobytes()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=13), st.integers(0, 2**32))
def test_any_partition_gives_the_same_bits(node_of: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(rng.standard_normal(33) * 10.0 ** rng.integers(-6, 6)).astype(np.float32) for _ in node_of]
    want = reference(parts, 0, len(parts))
    assert over_nodes(parts, node_of) == want.tobytes()
    average = (want / np.float32(len(parts))).astype(np.float32)
    assert over_nodes(parts, node_of, ReduceOp.AVG) == average.tobytes()


@given(st.integers(1, 64), st.data())
def test_subtrees_are_whole_and_cover_the_members(size: int, draw: st.DataObject) -> None:
    members = tuple(sorted(draw.draw(st.sets(st.integers(0, size - 1)))))
    ranges = subtrees(size, members)
    assert [rank for low, high in ranges for rank in range(low, high)] == list(members)


def test_blocks_do_not_change_the_result() -> None:
    parts = [np.random.default_rng(k).standard_normal(300_001).astype(np.float32) for k in range(5)]
    assert over_nodes(parts, [0, 0, 1, 0, 0]) == reference(parts, 0, 5).tobytes()


@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name)
def test_two_ranks_give_what_torch_adds(dtype: DType) -> None:
    torch: Any = pytest.importorskip("torch")
    kind = getattr(torch, dtype.name, None)
    if kind is None:
        pytest.skip("this torch does not know the type")
    wide = torch.complex64 if "complex" in dtype.name else torch.float32
    a, b = (torch.arange(-4, 5).to(wide).mul(0.37 * k).to(kind) for k in (1, 3))
    if dtype in (DType.uint16, DType.uint32, DType.uint64):
        want = torch.from_numpy(a.numpy() + b.numpy())
    elif dtype in TORCH_ONLY[2:]:
        larger = torch.complex64 if dtype == DType.complex32 else torch.float32
        want = (a.to(larger) + b.to(larger)).to(kind)
    else:
        want = a + b
    left, right, out = (x.view(torch.uint8).numpy().copy() for x in (a, b, a))
    kernel(dtype, ReduceOp.SUM).combine(left, right, out)
    assert out.tobytes() == want.view(torch.uint8).numpy().tobytes()


def test_what_is_not_defined_is_refused() -> None:
    with pytest.raises(Mismatch, match="BAND is not defined for float32"):
        kernel(DType.float32, ReduceOp.BAND)
    with pytest.raises(Mismatch, match="MAX is not defined for complex64"):
        kernel(DType.complex64, ReduceOp.MAX)
