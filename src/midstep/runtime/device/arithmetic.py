"""The canonical reduction (docs/internals/canonical-reduction.md) over tensors that lie on one device.

The bits are those that a proxy computes on the host from the same inputs: the same tree, every inner node
rounded to the element type. Only what IEEE 754 fixes is done here; see ``defined``.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from typing import Any, Callable, Dict, Sequence

import torch

from ...mailbox.contract import ReduceOp
from ...mailbox.tree import split

Tensor = torch.Tensor
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_COMBINE: Dict[ReduceOp, Callable[..., Any]] = {
    ReduceOp.SUM: torch.add,
    ReduceOp.AVG: torch.add,
    ReduceOp.PRODUCT: torch.mul,
    ReduceOp.MIN: torch.minimum,
    ReduceOp.MAX: torch.maximum,
}
_ON_FLOATS = (ReduceOp.SUM, ReduceOp.AVG, ReduceOp.PRODUCT)
_ON_INTEGERS = (ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp.MIN, ReduceOp.MAX)


def defined(reduce: ReduceOp, dtype: torch.dtype) -> bool:
    """Whether the device's result has the host's bits: sums, averages and products of floating-point numbers
    (of which minus zero makes minima ambiguous) and what is exact on integers."""
    return (dtype in _FLOATS and reduce in _ON_FLOATS) or (dtype in _INTEGERS and reduce in _ON_INTEGERS)


def combine(parts: Sequence[Tensor], reduce: ReduceOp, out: Tensor) -> None:
    """``out`` becomes the reduction of all parts, in the order of the ranks; it may be one of them."""
    _fold(parts, _COMBINE[reduce], 0, len(parts), out)
    if reduce is ReduceOp.AVG:
        # By a tensor: torch multiplies by the reciprocal of a plain number on a GPU.
        out.div_(torch.full((), len(parts), dtype=out.dtype, device=out.device))


def _fold(parts: Sequence[Tensor], op: Callable[..., Any], low: int, high: int, out: Any) -> Tensor:
    if high - low == 1:
        return parts[low]
    middle = split(low, high)
    left = _fold(parts, op, low, middle, None)
    right = _fold(parts, op, middle, high, None)
    return op(left, right) if out is None else op(left, right, out=out)
