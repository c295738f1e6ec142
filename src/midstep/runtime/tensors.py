"""Tensors as buffers: element types, staging of what is not plain host memory, argument checks."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Tuple

import torch

from ..mailbox.contract import Buffer, DType

Tensor = torch.Tensor
Finish = Callable[[], None]

DTYPES = {getattr(torch, d.name): d for d in DType if hasattr(torch, d.name)}
"""torch's element types that the mailbox knows by number; any other travels as bytes and cannot be reduced.
"""

CPU = torch.device("cpu")


def dtype_of(tensor: Tensor) -> DType:
    """The mailbox's number for the element type; bytes for a type that it does not know."""
    return DTYPES.get(tensor.dtype, DType.uint8)


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor's memory can be handed out as it lies: contiguous, on the host, not lazily
    conjugated.
    """
    return tensor.is_contiguous() and tensor.is_cpu and not tensor.is_conj()


def buffer_of(tensor: Tensor) -> Buffer:
    """The memory of a plain tensor."""
    return Buffer(tensor.data_ptr(), tensor.nbytes, tensor)


def source(tensor: Tensor) -> Buffer:
    """Memory that holds the tensor's values: its own, or a copy in host memory.

    For a CUDA tensor the copy waits for the work queued on the current stream. (Not tested here: needs a
    GPU.)
    """
    if is_plain(tensor):
        return buffer_of(tensor)
    return buffer_of(tensor.detach().resolve_conj().to(CPU).contiguous())


def target(tensor: Tensor) -> Tuple[Buffer, Optional[Finish]]:
    """Memory for a result, and what moves it into the tensor afterwards where that memory is not the tensor's
    own.
    """
    if is_plain(tensor):
        return buffer_of(tensor), None
    staged = torch.empty(tensor.shape, dtype=tensor.dtype)
    return buffer_of(staged), lambda: copy_into(tensor, staged)


def in_place(tensor: Tensor) -> Tuple[Buffer, Optional[Finish]]:
    """Memory that holds the tensor's values and takes the result."""
    if is_plain(tensor):
        return buffer_of(tensor), None
    staged = torch.empty(tensor.shape, dtype=tensor.dtype)
    staged.copy_(tensor.detach())
    return buffer_of(staged), lambda: copy_into(tensor, staged)


def copy_into(tensor: Tensor, staged: Tensor) -> None:
    """Write a staged result back; on a GPU also wait for the copy, since ``staged`` may be freed next."""
    tensor.detach().copy_(staged.view(tensor.shape))
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()


def packed(tensors: Sequence[Tensor]) -> Buffer:
    """The values of several tensors of one type, one behind the other; their own memory where they lie like
    that.
    """
    first = tensors[0]
    if len(tensors) == 1:
        return source(first)
    joined = _adjacent(tensors)
    if joined is not None:
        return joined
    flat = torch.cat([t.detach().resolve_conj().reshape(-1).to(CPU) for t in tensors])
    return buffer_of(flat)


def unpacked(tensors: Sequence[Tensor]) -> Tuple[Buffer, Optional[Finish]]:
    """Memory for several results, one behind the other, and what spreads it into the tensors."""
    if len(tensors) == 1:
        return target(tensors[0])
    joined = _adjacent(tensors)
    if joined is not None:
        return joined, None
    flat = torch.empty(sum(t.numel() for t in tensors), dtype=tensors[0].dtype)

    def finish() -> None:
        at = 0
        for tensor in tensors:
            count = tensor.numel()
            copy_into(tensor, flat[at : at + count])
            at += count

    return buffer_of(flat), finish


def _adjacent(tensors: Sequence[Tensor]) -> Optional[Buffer]:
    """The common memory of plain tensors that lie one directly behind the other (chunks of one tensor), or
    None.
    """
    start = at = tensors[0].data_ptr()
    for tensor in tensors:
        if not is_plain(tensor) or tensor.data_ptr() != at:
            return None
        at += tensor.nbytes
    return Buffer(start, at - start, list(tensors)) if at > start else None


def both(first: Optional[Finish], second: Optional[Finish]) -> Optional[Finish]:
    """The two finishing steps as one."""
    if first is None or second is None:
        return first or second

    def finish() -> None:
        first()
        second()

    return finish


class Checks:
    """Argument checks that raise what torch's gloo backend raises: ValueError, ``ProcessGroupGloo::<op>:
    ...``.
    """

    @staticmethod
    def fail(op: str, message: str) -> None:
        raise ValueError(f"ProcessGroupGloo::{op}: {message}")

    @classmethod
    def single(cls, op: str, tensors: Sequence[Tensor], which: str = "") -> Tensor:
        """The only element of the list."""
        if len(tensors) != 1:
            cls.fail(op, f"requires a single-element {which}tensor list")
        return tensors[0]

    @classmethod
    def dense(cls, op: str, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided:
            cls.fail(op, "only supports dense tensors")

    @classmethod
    def root(cls, op: str, root: int, size: int) -> None:
        if not 0 <= root < size:
            cls.fail(op, f"invalid root rank: {root}")

    @classmethod
    def alike(cls, op: str, like: Tensor, tensors: Sequence[Tensor], sizes: bool = True) -> None:
        """Every tensor has the type (and sizes) of ``like``."""
        for index, tensor in enumerate(tensors):
            if tensor.dtype != like.dtype or tensor.layout != like.layout:
                got, want = tensor.type(), like.type()
                cls.fail(op, f"invalid tensor type at index {index} (expected {want}, got {got})")
            if sizes and tensor.shape != like.shape:
                got_size, want_size = list(tensor.shape), list(like.shape)
                cls.fail(op, f"invalid tensor size at index {index} (expected {want_size}, got {got_size})")


def byte_splits(splits: Sequence[int], tensor: Tensor, size: int) -> Tuple[int, ...]:
    """Bytes for each of ``size`` members from torch's split sizes along dimension 0 (none: equal shares)."""
    rows = tensor.shape[0] if tensor.dim() else 0
    row_bytes = tensor.nbytes // rows if rows else 0
    if not splits:
        if rows % size:
            raise RuntimeError("Tensor's dim 0 does not divide equally across group size")
        return (rows // size * row_bytes,) * size
    if len(splits) != size:
        raise RuntimeError("Number of tensor splits not equal to group size")
    if sum(splits) != rows:
        raise RuntimeError("Split sizes doesn't match total dim 0 size")
    return tuple(int(n) * row_bytes for n in splits)


def factor_of(op: Any) -> float:
    """PREMUL_SUM's factor, from the op's pickled state (the only access that every torch 2.4+ has)."""
    factor = op.__getstate__()[1]
    return float(factor.item() if isinstance(factor, torch.Tensor) else factor)
