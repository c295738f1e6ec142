"""Combining two arrays element by element, for every element type and reduction.

numpy where it knows the type (its calls cost least), torch for the small floats, and for the types that even
torch cannot add (8-bit floats, half complex) by way of a larger type, rounded after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np

from midstep.mailbox.contract import DType, ReduceOp
from midstep.proxy.errors import Mismatch

np.seterr(all="ignore")  # overflow and division are the job's business, as they are under gloo
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_Combine = Callable[..., Any]

_NUMPY: dict[DType, str] = {
    DType.uint8: "u1",
    DType.int8: "i1",
    DType.int16: "i2",
    DType.int32: "i4",
    DType.int64: "i8",
    DType.float32: "f4",
    DType.float64: "f8",
    DType.bool: "?",
    DType.complex64: "c8",
    DType.complex128: "c16",
    DType.uint16: "u2",
    DType.uint32: "u4",
    DType.uint64: "u8",
}
_WIDE = {DType.float8_e4m3fn: "float32", DType.float8_e5m2: "float32", DType.complex32: "complex64"}
_COMPLEX = (DType.complex64, DType.complex128, DType.complex32)
_FLOATS = (
    DType.float16,
    DType.bfloat16,
    DType.float32,
    DType.float64,
    DType.float8_e4m3fn,
    DType.float8_e5m2,
    *_COMPLEX,
)
_UFUNCS: dict[ReduceOp, _Combine] = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PREMUL_SUM: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}
_TORCH_NAMES = {
    ReduceOp.SUM: "add",
    ReduceOp.AVG: "add",
    ReduceOp.PREMUL_SUM: "add",
    ReduceOp.PRODUCT: "mul",
    ReduceOp.MIN: "minimum",
    ReduceOp.MAX: "maximum",
}


class Kernel(Protocol):
    """Arithmetic on arrays of bytes that hold elements of one type."""

    def combine(self, left: Bytes, right: Bytes, out: Bytes) -> None:
        """``out = left op right``; ``out`` may be ``left``."""
        ...

    def divide(self, out: Bytes, divisor: int) -> None:
        """Divide in place (integers: rounded down)."""
        ...

    def scale(self, source: Bytes, factor: float) -> Bytes:
        """A new array: ``source`` times ``factor``."""
        ...


@cache
def kernel(dtype: int, reduce: int) -> Kernel:
    """The arithmetic of a reduction; raises Mismatch where it is not defined (as torch does)."""
    kind, op = DType(dtype), ReduceOp(reduce)
    if op in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR) and kind in _FLOATS:
        raise Mismatch(f"{op.name} is not defined for {kind.name}")
    if op in (ReduceOp.MIN, ReduceOp.MAX) and kind in _COMPLEX:
        raise Mismatch(f"{op.name} is not defined for {kind.name}")
    if kind in _NUMPY:
        return _Numpy(np.dtype(_NUMPY[kind]), _UFUNCS[op])
    return _Torch(kind, op)


class _Numpy:
    def __init__(self, dtype: np.dtype[Any], ufunc: _Combine) -> None:
        self._dtype = dtype
        self._ufunc = ufunc

    def combine(self, left: Bytes, right: Bytes, out: Bytes) -> None:
        dtype = self._dtype
        self._ufunc(left.view(dtype), right.view(dtype), out=out.view(dtype))

    def divide(self, out: Bytes, divisor: int) -> None:
        values = out.view(self._dtype)
        if self._dtype.kind in "fc":
            np.divide(values, divisor, values)
        elif self._dtype.kind != "b":
            np.floor_divide(values, divisor, values)

    def scale(self, source: Bytes, factor: float) -> Bytes:
        values = source.view(self._dtype)
        if self._dtype.kind in "fc":
            return np.multiply(values, factor).view(np.uint8)
        return np.multiply(values, int(factor)).astype(self._dtype).view(np.uint8)


class _Torch:
    def __init__(self, dtype: DType, op: ReduceOp) -> None:
        import torch

        self._torch: Any = torch
        self._dtype: Any = getattr(torch, dtype.name)
        self._wide: Any = getattr(torch, _WIDE[dtype]) if dtype in _WIDE else None
        self._op: Any = getattr(torch, _TORCH_NAMES[op])

    def combine(self, left: Bytes, right: Bytes, out: Bytes) -> None:
        a, b, c = self._view(left), self._view(right), self._view(out)
        if self._wide is None:
            self._op(a, b, out=c)
        else:
            c.copy_(self._op(a.to(self._wide), b.to(self._wide)))

    def divide(self, out: Bytes, divisor: int) -> None:
        values = self._view(out)
        if self._wide is None:
            values.div_(divisor)
        else:
            values.copy_(values.to(self._wide).div_(divisor))

    def scale(self, source: Bytes, factor: float) -> Bytes:
        values = self._view(source)
        wide = values if self._wide is None else values.to(self._wide)
        return (wide * factor).to(self._dtype).view(self._torch.uint8).numpy()

    def _view(self, data: Bytes) -> Any:
        return self._torch.frombuffer(data.data, dtype=self._dtype) if len(data) else self._empty()

    def _empty(self) -> Any:
        return self._torch.empty(0, dtype=self._dtype)
