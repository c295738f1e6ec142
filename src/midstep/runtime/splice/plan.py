"""What an optimizer consists of: its tensors, where they lie, and whether another rank may make its step."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import hashlib
from itertools import chain
from operator import attrgetter, is_, methodcaller
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch

from .maps import PAGE

BIG_BYTES = 64 << 10  # smaller parameters are copied from the rank that makes the step
MANY = 256  # tensors; a step for all costs the ranks less than their own ones, be the tensors ever so small

# Classes whose step reads nothing but gradients, parameters, state and settings, and writes state in place.
_KNOWN = frozenset(
    ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD"),
) | {"Adafactor"}


class Unfit(Exception):
    """This optimizer's step cannot be shared, now or ever; the text says why."""


_data_ptr = torch.Tensor.data_ptr
_version = attrgetter("_version")


class Piece:
    """A tensor of an optimizer. ``own`` keeps its memory alive: the address cannot come to mean another."""

    __slots__ = ("tensor", "own", "address", "nbytes", "is_param", "moved")

    def __init__(self, tensor: torch.Tensor, is_param: bool) -> None:
        self.tensor = tensor
        self.is_param = is_param
        self.moved = False
        self.locate()

    def move(self, to: torch.Tensor) -> None:
        """Have the tensor elsewhere from now on, in memory that cannot be resized."""
        self.tensor.data = to
        self.moved = True
        self.locate()

    def locate(self) -> None:
        """Take down where the tensor is."""
        self.own = self.tensor.detach()
        self.address: int = self.own.data_ptr()
        self.nbytes: int = self.own.numel() * self.own.element_size()

    @property
    def big(self) -> bool:
        return self.nbytes >= BIG_BYTES

    @property
    def low(self) -> int:
        """The first page that is wholly the tensor's."""
        return -(-self.address // PAGE) * PAGE

    @property
    def high(self) -> int:
        """The end of the last such page."""
        return (self.address + self.nbytes) // PAGE * PAGE


class Plan:
    """An optimizer's tensors in order. Raises Unfit."""

    def __init__(self, optimizer: Any) -> None:
        self.pieces: List[Piece] = []
        described: List[Any] = [type(optimizer).__name__, torch.__version__, torch.get_num_threads()]
        self.stepped = set()  # ids of parameters that have what state they will ever have
        for key, tensor, is_param in _tensors(optimizer):
            _check_tensor(tensor)
            self.pieces.append(Piece(tensor, is_param))
            kind = str(tensor.dtype), tuple(tensor.shape), tensor.stride(), tensor.requires_grad
            described.append((key, *kind))
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None or optimizer.state.get(p):
                    self.stepped.add(id(p))
        self._check_overlap()
        self.bigs = [piece for piece in self.pieces if piece.big]
        small = [piece for piece in self.pieces if not piece.big]
        self.block = [piece for piece in small if piece.nbytes and not piece.is_param]  # moves together
        self.smalls = [piece for piece in small if piece.is_param]
        if not self.bigs and not (self.block and len(self.pieces) >= MANY):
            raise Unfit("there is nothing large to share")
        self.params = parameters(optimizer)
        self.signature = hashlib.blake2b(repr(described).encode(), digest_size=16).digest()
        self._held = _held(optimizer)
        self._noted: Dict[bytes, List[Tuple[int, List[torch.Tensor]]]] = {}
        self._tensors: List[torch.Tensor] = []
        self._fixed: List[torch.Tensor] = []

    @property
    def shared(self) -> List[Piece]:
        """Those whose memory is to be the same in all ranks."""
        return self.bigs + self.block

    def settle(self) -> None:
        """All pieces are where they will be. Not before: what they leave is to be free then."""
        self._tensors = [piece.tensor for piece in self.pieces]
        self._addresses = [piece.address for piece in self.pieces]
        fixed = [piece for piece in self.pieces if not piece.moved]
        self._fixed = [piece.own for piece in fixed]
        self._fixed_at = [piece.address for piece in fixed]

    def in_place(self, optimizer: Any) -> bool:
        """Whether the optimizer has just these tensors still, where they were. Asked at every step."""
        held = _held(optimizer)
        return (
            len(held) == len(self._held)
            and all(map(is_, held, self._held))
            and list(map(_data_ptr, self._tensors)) == self._addresses
            and list(map(_data_ptr, self._fixed)) == self._fixed_at
        )

    def versions(self) -> List[int]:
        """How often each tensor was written, as torch counts."""
        return list(map(_version, self._tensors))

    def count_up(self, notes: bytes) -> None:
        """As if each tensor had been written so many times more."""
        groups = self._noted.get(notes)
        if groups is None:
            if len(self._noted) >= 4:
                self._noted.clear()
            groups = self._noted[notes] = [
                (times, [tensor for tensor, note in zip(self._tensors, notes) if note == times])
                for times in sorted(set(notes))
            ]
        for times, tensors in groups:
            for _ in range(times):
                increment(tensors)

    def forget(self) -> None:
        """Keep no tensor alive any more."""
        for kept in (self.pieces, self.bigs, self.block, self.smalls, self.params, self._noted):
            kept.clear()
        for kept in (self._held, self._tensors, self._fixed):
            kept.clear()

    def _check_overlap(self) -> None:
        end = 0
        for piece in sorted(self.pieces, key=lambda piece: (piece.address, piece.nbytes)):
            if piece.nbytes and piece.address < end:
                raise Unfit("tensors overlap")
            end = max(end, piece.address + piece.nbytes)


def known(optimizer: Any) -> bool:
    """Whether it is one of torch's own classes that may be shared at all."""
    kind = type(optimizer)
    return kind.__name__ in _KNOWN and (kind.__module__ + ".").startswith("torch.optim.")


def structure(optimizer: Any) -> Optional[Tuple[int, ...]]:
    """What stays the same from step to step once an optimizer has all its state; None: unfit."""
    try:
        tensors = [tensor for _, tensor, _ in _tensors(optimizer)]
        return tuple([part for tensor in tensors for part in (id(tensor), tensor.data_ptr())])
    except (Unfit, RuntimeError):
        return None


def parameters(optimizer: Any) -> List[torch.Tensor]:
    """All of them, by group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def settings(optimizer: Any) -> bytes:
    """Everything but tensors in lists that decides what a step does. Raises Unfit."""
    if any(getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf")):
        raise Unfit("a gradient scaler works inside the step")
    parts: List[str] = []
    for group in optimizer.param_groups:
        for name in sorted(group):
            value = group[name]
            if name == "params":
                value = len(value)
            if isinstance(value, torch.Tensor):
                value = (str(value.dtype), value.tolist())
            if name == "differentiable" and value:
                raise Unfit("the step is differentiable")
            parts.append("%s=%r" % (name, value))
    return repr(parts).encode()


def increment(tensors: List[torch.Tensor]) -> None:
    """As if they had been written once more."""
    increment: Any = torch.autograd.graph.increment_version
    try:
        increment(tensors)
    except TypeError:  # torch before 2.6 takes one
        for tensor in tensors:
            increment(tensor)


def _held(optimizer: Any) -> List[Any]:
    """What an optimizer's tensors hang on, and these: parameters; keys, names and values of its state."""
    held: List[Any] = parameters(optimizer)
    state = optimizer.state
    held += state
    held += chain.from_iterable(state.values())
    held += chain.from_iterable(map(methodcaller("values"), state.values()))
    return held


def _tensors(optimizer: Any) -> Iterator[Tuple[Any, torch.Tensor, bool]]:
    state = optimizer.state
    for number, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            yield (number, place), p, True
            of_p = state.get(p)
            if not of_p:
                continue
            for name in of_p:
                value = of_p[name]
                if isinstance(value, torch.Tensor):
                    yield (number, place, name), value, False
                elif value is not None:
                    raise Unfit("the state has values that are no tensors")


def _check_tensor(tensor: torch.Tensor) -> None:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise Unfit("a tensor of class %s" % type(tensor).__name__)
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_inference():
        raise Unfit("a tensor is not in plain host memory")
    if tensor.is_conj() or tensor.is_neg() or not dense(tensor) or tensor.untyped_storage().is_shared():
        raise Unfit("a tensor is a view, or shared already")


def dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill the memory from the first to the last without holes."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True
