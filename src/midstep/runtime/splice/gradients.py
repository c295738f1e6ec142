"""What there is to say of an optimizer's gradients beside their content."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import struct
from operator import attrgetter
from typing import Any, List, Optional, Sequence, Set, Tuple

import torch

from .plan import Unfit, dense

_kind = attrgetter("dtype", "layout", "is_cpu", "shape")
_data_ptr, _is_neg = torch.Tensor.data_ptr, torch.Tensor.is_neg
_stride: Any = torch.Tensor.stride
Form = Tuple[List[Any], ...]


class Gradients:
    """Of one optimizer's parameters. They are looked at one by one only where something about them is not as
    it was at the step before."""

    def __init__(self, params: Sequence[torch.Tensor], expected: Set[int]) -> None:
        """``expected``: ids of parameters that may have one."""
        self._params = params
        self._expected = expected
        self._form: Optional[Form] = None
        self._described = b""
        self.sizes: List[int] = []  # in bytes, of those there are

    def look(self) -> Tuple[bytes, List[int]]:
        """(everything but their content, where they lie). Raises Unfit."""
        grads = [p.grad for p in self._params]
        there = [grad for grad in grads if grad is not None]
        if not self._as_before(grads, there):
            self._form = None
            self._described = b"\0".join([self._describe(p, p.grad) for p in self._params])
            self.sizes = [grad.nbytes for grad in there]
            if not any(grad.is_complex() for grad in there):  # those may be lazily conjugated at any time
                self._form = _form(grads), list(map(_kind, there)), list(map(_stride, there))
        return self._described, list(map(_data_ptr, there))

    def _as_before(self, grads: List[Any], there: List[torch.Tensor]) -> bool:
        form = self._form
        return (
            form is not None
            and _form(grads) == form[0]
            and list(map(_kind, there)) == form[1]
            and list(map(_stride, there)) == form[2]
            and not any(map(_is_neg, there))
        )

    def _describe(self, parameter: torch.Tensor, grad: Optional[torch.Tensor]) -> bytes:
        if grad is None:
            return b"-"
        if id(parameter) not in self._expected:
            raise Unfit("a parameter has its first gradient")
        plain = type(grad) is torch.Tensor and grad.layout == torch.strided and grad.device.type == "cpu"
        if not plain or grad.dtype != parameter.dtype or grad.is_conj() or grad.is_neg() or not dense(grad):
            raise Unfit("a gradient is not a plain tensor")
        numbers = (grad.numel(), *grad.stride())
        return struct.pack("=%dq" % len(numbers), *numbers)


def _form(grads: List[Any]) -> List[Any]:
    """Which there are, of which classes."""
    return list(map(type, grads))
