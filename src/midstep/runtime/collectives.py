"""Reductions, broadcasts and barriers."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any, Dict, List, Optional, Sequence

import torch

from ..mailbox.contract import Kind, Op, ReduceOp
from .base import GroupBase
from .device.group import on_device
from .monitored import monitored_barrier
from .sparse import sparse_allreduce
from .tensors import DTYPES, Checks, Tensor, dtype_of, factor_of, in_place, packed, source, target
from .work import OpWork

REDUCE_OPS: Dict[int, ReduceOp] = {int(op): op for op in ReduceOp}
BITWISE = (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR)


class Reductions(GroupBase):
    """The operations that combine or spread one tensor."""

    def _reduction(self, kind: Kind, op: Any, tensor: Tensor, root: int = 0) -> Op:
        """The description of a reduction; refuses what cannot be computed on the element type."""
        reduce = REDUCE_OPS.get(int(getattr(op, "op", op)))
        if reduce is None:
            raise ValueError(f"Unsupported reduce operation {op}")
        dtype = DTYPES.get(tensor.dtype)
        if dtype is None:
            raise ValueError(f"Invalid scalar type {tensor.dtype}")
        if reduce in BITWISE and (tensor.is_floating_point() or tensor.is_complex()):
            raise ValueError(f"Cannot use ReduceOp.{reduce.name} with non-integral dtype")
        if reduce is ReduceOp.PREMUL_SUM:
            return Op(kind, self._gid, dtype, reduce, root, scale=factor_of(op))
        return self._op(kind, dtype, reduce, root)

    def allreduce(self, tensors: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``opts``: AllreduceOptions, or the reduce op itself."""
        tensor = tensors if isinstance(tensors, Tensor) else Checks.single("allreduce", tensors)
        if tensor.layout is not torch.strided:
            return sparse_allreduce(self, tensor, _reduce_of(opts), self._event(Kind.ALLREDUCE, (tensor,)))
        return self._allreduce(tensor, opts, (tensor,))

    def _allreduce(self, tensor: Tensor, opts: Any, shown: Sequence[Tensor] = ()) -> OpWork:
        op = self._reduction(Kind.ALLREDUCE, _reduce_of(opts), tensor)
        if tensor.is_cuda:
            work = on_device(self, op, tensor, shown)
            if work is not None:
                return work
        buffer, finish = in_place(tensor)
        return self._start(op, buffer, buffer, [tensor], finish, shown)

    def allreduce_coalesced(self, tensors: Sequence[Tensor], opts: Any = None) -> OpWork:
        if not tensors:
            Checks.fail("allreduce_coalesced", "requires non-empty tensor list")
        Checks.alike("allreduce_coalesced", tensors[0], tensors, sizes=False)
        Checks.dense("allreduce_coalesced", tensors[0])
        end = self._event(Kind.ALLREDUCE, tensors)
        return self._together([self._allreduce(tensor, opts) for tensor in tensors], end)

    def reduce(self, tensors: Any, opts: Any = None, op: Any = None, timeout: Any = None) -> OpWork:
        """``opts``: ReduceOptions, or the root's rank."""
        tensor = tensors if isinstance(tensors, Tensor) else Checks.single("reduce", tensors)
        root = opts if isinstance(opts, int) else getattr(opts, "rootRank", 0)
        Checks.root("reduce", root, self._n)
        Checks.dense("reduce", tensor)
        description = self._reduction(Kind.REDUCE, op or _reduce_of(opts), tensor, root)
        if self._me != root:
            return self._start(description, source(tensor), None, [tensor], None, (tensor,))
        buffer, finish = in_place(tensor)
        return self._start(description, buffer, buffer, [tensor], finish, (tensor,))

    def broadcast(self, tensors: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``opts``: BroadcastOptions, or the root's rank."""
        tensor = tensors if isinstance(tensors, Tensor) else Checks.single("broadcast", tensors)
        root = opts if isinstance(opts, int) else getattr(opts, "rootRank", 0)
        Checks.root("broadcast", root, self._n)
        Checks.dense("broadcast", tensor)
        op = self._op(Kind.BROADCAST, dtype_of(tensor), root=root)
        if self._me == root:
            return self._start(op, source(tensor), None, [tensor], None, (tensor,))
        buffer, finish = target(tensor)
        return self._start(op, None, buffer, [tensor], finish, (tensor,))

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``inputs``: one list with a tensor for each member; sizes may differ between members."""
        output = (
            outputs if isinstance(outputs, Tensor) else Checks.single("reduce_scatter", outputs, "output ")
        )
        parts: List[Tensor] = list(inputs if isinstance(inputs[0], Tensor) else inputs[0])
        if len(parts) != self._n:
            Checks.fail("reduce_scatter", "invalid input tensor list size, must be world size")
        Checks.alike("reduce_scatter", output, parts, sizes=False)
        Checks.alike("reduce_scatter", output, parts[self._me : self._me + 1])
        splits = [part.nbytes for part in parts]
        return self._reduce_scatter(output, packed(parts), splits, _reduce_of(opts), parts)

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: Any = None) -> OpWork:
        if input.numel() != output.numel() * self._n:
            raise ValueError(
                "input tensor must be the same size as output size times world size: "
                f"{input.numel()} elements for {self._n} times {output.numel()}"
            )
        Checks.alike("reduce_scatter_tensor", output, [input], sizes=False)
        splits = [output.nbytes] * self._n
        return self._reduce_scatter(output, source(input), splits, _reduce_of(opts), (input,))

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> OpWork:
        works = [Reductions.reduce_scatter_single(self, o, i, opts) for o, i in zip(outputs, inputs)]
        return self._together(works)

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def _reduce_scatter(
        self, output: Tensor, src: Any, splits: Sequence[int], reduce: Any, inputs: Sequence[Tensor]
    ) -> OpWork:
        described = self._reduction(Kind.REDUCE_SCATTER, reduce, output)
        op = dataclasses.replace(described, splits=splits)
        dst, finish = target(output)
        return self._start(op, src, dst, [output], finish, inputs)

    def barrier(self, opts: Any = None, timeout: Any = None) -> OpWork:
        work = self._start(self._op(Kind.BARRIER), None, None, [])
        own = getattr(opts, "timeout", timeout)
        return work.limit(own) if own and own.total_seconds() > 0 else work

    def monitored_barrier(self, timeout: Optional[timedelta] = None, wait_all_ranks: bool = False) -> None:
        """As gloo's: rank 0 names who did not come in time."""
        monitored_barrier(self, self.timeout if timeout is None else timeout, wait_all_ranks)


def _reduce_of(opts: Any) -> Any:
    """The reduce op of an options object, of an op given directly, or the default."""
    if opts is None:
        return ReduceOp.SUM
    return getattr(opts, "reduceOp", opts)
