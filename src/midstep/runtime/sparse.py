"""all_reduce of sparse tensors, as gloo does it: all gather everything and add it up in rank order."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional

import torch

from ..mailbox.contract import ReduceOp
from .tensors import Checks, Finish, Tensor
from .work import OpWork, done_work

if TYPE_CHECKING:
    from .group import Group


def sparse_allreduce(group: Group, tensor: Tensor, reduce: Any, end: Optional[Finish]) -> OpWork:
    """Sum over the group into ``tensor``; done when it returns.

    Raises ValueError for another layout or reduction, and when the members' shapes differ.
    """
    if tensor.layout is not torch.sparse_coo:
        Checks.fail("allreduce", "unsupported layout")
    if int(getattr(reduce, "op", reduce)) != ReduceOp.SUM:
        message = "unsupported reduction operation (allreduce of sparse tensors only works with ReduceOp.SUM)"
        Checks.fail("allreduce", message)
    mine = tensor.detach().coalesce()
    counts = _counts(group, mine)
    rows = [torch.empty((mine.sparse_dim(), n), dtype=torch.int64) for n in counts]
    dense = mine.shape[mine.sparse_dim() :]
    values = [torch.empty((n, *dense), dtype=mine.dtype) for n in counts]
    group.allgather_uneven(rows, mine.indices().cpu().contiguous())
    group.allgather_uneven(values, mine.values().cpu().contiguous())
    total = torch.sparse_coo_tensor(rows[0], values[0], mine.shape)
    for row, value in zip(rows[1:], values[1:]):
        total = total + torch.sparse_coo_tensor(row, value, mine.shape)
    with torch.no_grad():
        tensor.copy_(total.coalesce())
    if end is not None:
        end()
    return done_work([tensor])


def _counts(group: Group, mine: Tensor) -> List[int]:
    """How many elements each member has; checks that shapes agree."""
    about = torch.tensor([mine._nnz(), mine.sparse_dim(), mine.dense_dim(), *mine.shape], dtype=torch.int64)
    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(group.size())]
    group.allgather_uneven(lengths, torch.tensor([about.numel()]))
    everyone = [torch.empty(int(n), dtype=torch.int64) for n in lengths]
    group.allgather_uneven(everyone, about)
    if any(other[1:].tolist() != about[1:].tolist() for other in everyone):
        Checks.fail("allreduce", "Sparse dimensions do not match")
    return [int(other[0]) for other in everyone]
