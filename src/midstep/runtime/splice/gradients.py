"""What there is to say of an optimizer's gradients beside their content."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import struct
from operator import attrgetter
from typing import Any, List, Optional, Tuple

import torch

from .plan import Plan, Unfit, dense

_kind = attrgetter("dtype", "layout", "is_cpu", "shape")
_data_ptr, _is_neg = torch.Tensor.data_ptr, torch.Tensor.is_neg
_stride: Any = torch.Tensor.stride
Form = Tuple[List[Any], ...]


class Gradients:
    """Of one optimizer's parameters. They are looked at one by one only where something about them is not as
    it was at the step before.

    Of what was looked at last, as lists: ``long``: (address, bytes) of those of large parameters; ``short``:
    (which small parameter, address, bytes) of the others."""

    def __init__(self, plan: Plan) -> None:
        self._params = plan.params
        self._expected = plan.stepped
        self._slots = {id(piece.tensor): slot for slot, piece in enumerate(plan.smalls)}
        self._form: Optional[Form] = None
        self._described = b""
        self._places: Tuple[List[int], List[int]] = [], []  # of the long ones, of the short ones
        self.nbytes = 0
        self.long: Tuple[List[int], List[int]] = [], []
        self.short: Tuple[List[int], List[int], List[int]] = [], [], []

    def look(self) -> bytes:
        """Everything but their content. Raises Unfit."""
        grads = [p.grad for p in self._params]
        there = [grad for grad in grads if grad is not None]
        if not self._as_before(grads, there):
            self._form = None
            self._described = b"\0".join([self._describe(p, p.grad) for p in self._params])
            self._sort(there)
            if not any(grad.is_complex() for grad in there):  # those may be lazily conjugated at any time
                self._form = _form(grads), list(map(_kind, there)), list(map(_stride, there))
        addresses = list(map(_data_ptr, there))
        self.long = [addresses[place] for place in self._places[0]], self.long[1]
        self.short = self.short[0], [addresses[place] for place in self._places[1]], self.short[2]
        return self._described

    def _sort(self, there: List[torch.Tensor]) -> None:
        slots = [self._slots.get(id(p)) for p in self._params if p.grad is not None]
        sizes = [grad.nbytes for grad in there]
        long = [place for place, slot in enumerate(slots) if slot is None]
        short = [place for place, slot in enumerate(slots) if slot is not None]
        self._places, self.nbytes = (long, short), sum(sizes)
        self.long = [], [sizes[place] for place in long]
        self.short = [s for s in slots if s is not None], [], [sizes[place] for place in short]

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
        alike = plain and grad.dtype == parameter.dtype and grad.shape == parameter.shape
        if not alike or grad.is_conj() or grad.is_neg() or not dense(grad):
            raise Unfit("a gradient is not a plain tensor")
        numbers = (grad.numel(), *grad.stride())
        return struct.pack("=%dq" % len(numbers), *numbers)


def _form(grads: List[Any]) -> List[Any]:
    """Which there are, of which classes."""
    return list(map(type, grads))
