"""The memory that sharers map: one file with an optimizer's large tensors and small state, and room for the
small parameters.

Every rank maps the whole pages of its large tensors, where they are, as *private* mappings of the file: what
it reads is the file, what it writes by hand is its own copy of the page. Only the rank that makes a step for
all writes the file, through a second mapping that is shared. A tensor's first and last bytes, on pages that
other data is on too, and small parameters are copied: the file has room for them as well. State of less than
a few pages, which nobody else knows, moves to one block, which is mapped like a large tensor.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import ctypes
import os
import struct
from collections import deque
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch

from . import maps
from .maps import PAGE
from .moving import Block, move
from .plan import Piece, Plan

# The plan's signature, how many large tensors, the step whose gradients are here; then the tensors' places in
# a page.
_HEADER = struct.Struct("=16sQQ")
_STEP_AT = 24
_ALIGNED = 64  # as memory from torch's allocator is
_memmove = ctypes.memmove
_LIBC = ctypes.CDLL(None)


class Differ(Exception):
    """This rank's memory is not that of the one that filled the arena."""


class Arena:
    """One rank's view of it. Raises OSError where there is no memory for it."""

    def __init__(self, path: str, plan: Plan, publish: bool) -> None:
        self.path = path
        self.plan = plan
        self.mapped: List[Piece] = []
        self.copied: List[Piece] = []  # large as well, but elsewhere in their pages than the others'
        self._block: Optional[Block] = None
        self.areas: List[Tuple[int, int]] = []  # what is mapped: (address, bytes)
        self.base = self.nbytes = 0
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if publish else 0)
        self._fd = os.open(path, flags, 0o600)
        try:
            places = [piece.address % PAGE for piece in plan.bigs] if publish else self._places()
            self._lay_out(places)
            if publish:
                os.ftruncate(self._fd, self.nbytes)
                os.posix_fallocate(self._fd, 0, self._first)
            self.base = maps.map_shared(self._fd, self.nbytes)
            if publish:
                self._publish(places)
            else:
                self._join(places)
        except BaseException:
            self.make_own()
            self.drop()
            raise
        finally:
            os.close(self._fd)
        plan.settle()
        self._mine, self._its, self._sizes = map(list, zip(*self._ends()))
        self._wholes = [(p.address, self.base + self._at[id(p)], p.nbytes) for p in self.copied]
        self._aliases = [(piece, self._alias(piece)) for piece in plan.shared]
        self.areas = [(piece.low, piece.high - piece.low) for piece in self.mapped]
        if self._block is not None:
            self.areas.append((self._block.address, self._block.nbytes))

    @property
    def shared_bytes(self) -> int:
        return sum([nbytes for _, nbytes in self.areas])

    @property
    def copied_bytes(self) -> int:
        return sum([nbytes for _, _, nbytes in self._wholes])

    def unshared(self) -> Tuple[List[int], List[int]]:
        """What lies in memory of this rank alone: addresses, and bytes, in an order that all sharers have."""
        return self._mine, self._sizes

    def as_published(self) -> bool:
        """Whether that is what the file holds."""
        return not any(map(maps.memcmp, self._mine, self._its, self._sizes))

    def untouched(self) -> bool:
        """Whether copies are still what the file holds."""
        return all(maps.equal(mine, its, nbytes) for mine, its, nbytes in self._wholes)

    # Around a step that is made for all.

    def begin(self) -> None:
        """From here on this rank's tensors are the file's."""
        self.put()
        for piece, alias in self._aliases:
            piece.tensor.data = alias

    def end(self) -> None:
        """They are its own again, with what was written."""
        for piece, _ in self._aliases:
            piece.tensor.data = piece.own
        small = len(self.plan.smalls)
        _copy(self._its[:small], self._mine, self._sizes)
        _copy(self._mine[small:], self._its[small:], self._sizes[small:])
        self._take_wholes()

    def put(self) -> None:
        """Write what is not mapped into the file."""
        _copy(self._its, self._mine, self._sizes)

    def take(self) -> None:
        """Read what is not mapped from the file."""
        _copy(self._mine, self._its, self._sizes)
        self._take_wholes()

    def _take_wholes(self) -> None:
        for mine, its, nbytes in self._wholes:
            _memmove(mine, its, nbytes)

    def notes(self) -> "ctypes.Array[ctypes.c_uint8]":
        """A byte for each tensor, in the file."""
        return (ctypes.c_uint8 * len(self.plan.pieces)).from_address(self.base + self._notes)

    # Gradients of small parameters, of the rank that came first to a step.

    @property
    def gradients_step(self) -> int:
        return ctypes.c_uint64.from_address(self.base + _STEP_AT).value

    def put_gradients(self, step: int, slots: List[int], addresses: List[int], sizes: List[int]) -> None:
        """Leave them; ``slots``: whose they are, of the plan's small parameters. With the board's lock."""
        _copy(self._gradients_of(slots), addresses, sizes)
        ctypes.c_uint64.from_address(self.base + _STEP_AT).value = step

    def has_gradients(self, slots: List[int], addresses: List[int], sizes: List[int]) -> bool:
        """Whether these are what was left."""
        return not any(map(maps.memcmp, self._gradients_of(slots), addresses, sizes))

    def _gradients_of(self, slots: List[int]) -> List[int]:
        places, base = self._gradients_at, self.base
        return [base + places[slot] for slot in slots]

    # Ending.

    def remap(self) -> None:
        """Forget pages that were copied, though not written."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for piece in self.mapped:
                self._map(fd, piece)
            if self._block is not None:
                self._block.map(fd, self._block_at)
        finally:
            os.close(fd)

    def copy_pages(self) -> None:
        """Have a copy of every page, for a child that is about to be forked."""
        for address, nbytes in self.areas:
            maps.copy_pages(address, nbytes)

    def make_own(self) -> None:
        """Map nothing any more: all memory is this rank's own, with its content."""
        mapped, self.mapped, self.areas = self.mapped, [], []
        for piece in mapped:
            if piece.own.data_ptr() == piece.address:
                maps.make_own(piece.low, piece.high - piece.low)
        block, self._block = self._block, None
        if block is not None:
            maps.make_own(block.address, block.nbytes)

    def drop(self) -> None:
        """Give up the second mapping. What ranks map of the file stays."""
        if self.base:
            base, self.base = self.base, 0
            self._aliases, self._wholes, self._block = [], [], None
            self._mine, self._its, self._sizes = [], [], []
            maps.unmap(base, self.nbytes)

    # How the file is laid out: header, notes, small parameters, small state, the large tensors, each at its
    # place in a page.

    def _lay_out(self, places: List[int]) -> None:
        plan = self.plan
        self._notes = _HEADER.size + 2 * len(places)
        at = self._notes + len(plan.pieces)
        self._at: Dict[int, int] = {}
        for piece in plan.smalls:
            at = -(-at // 16) * 16
            self._at[id(piece)] = at
            at += piece.nbytes
        gradients: List[int] = []
        for piece in plan.smalls:
            gradients.append(at)
            at += -(-piece.nbytes // 16) * 16
        self._gradients_at = gradients
        self._block_at = at = -(-at // PAGE) * PAGE
        for piece in plan.block:
            self._at[id(piece)] = at
            at += -(-piece.nbytes // _ALIGNED) * _ALIGNED
        self._first = at = -(-at // PAGE) * PAGE
        self._block_bytes = at - self._block_at
        for piece, place in zip(plan.bigs, places):
            self._at[id(piece)] = at + place
            at += -(-(place + piece.nbytes) // PAGE) * PAGE
        self.nbytes = at

    def _places(self) -> List[int]:
        signature, count, _ = _HEADER.unpack(os.pread(self._fd, _HEADER.size, 0))
        if signature != self.plan.signature or count != len(self.plan.bigs):
            raise Differ("the ranks' optimizers are not alike")
        return list(struct.unpack("=%dH" % count, os.pread(self._fd, 2 * count, _HEADER.size)))

    def _publish(self, places: List[int]) -> None:
        header = _HEADER.pack(self.plan.signature, len(places), 0)
        os.pwrite(self._fd, header + struct.pack("=%dH" % len(places), *places), 0)
        for piece in self.plan.bigs:
            at = self._at[id(piece)]
            os.posix_fallocate(self._fd, at - at % PAGE, at % PAGE + piece.nbytes)
            _memmove(self.base + at, piece.address, piece.nbytes)
            self._map(self._fd, piece)
            self.mapped.append(piece)
        for piece in self.plan.block:
            _memmove(self.base + self._at[id(piece)], piece.address, piece.nbytes)
        self._move_block()

    def _join(self, places: List[int]) -> None:
        moved = False
        for piece, place in zip(self.plan.bigs, places):
            if not maps.equal(piece.address, self.base + self._at[id(piece)], piece.nbytes):
                raise Differ("the ranks' parameters or states differ")
            there = piece.address % PAGE == place
            moved = moved or not there
            if there or move(piece, maps.fresh_memory(place + piece.nbytes), place):
                self._map(self._fd, piece)
                self.mapped.append(piece)
            else:
                self.copied.append(piece)
        for piece in self.plan.block:
            if not maps.equal(piece.address, self.base + self._at[id(piece)], piece.nbytes):
                raise Differ("the ranks' states differ")
        self._move_block()
        if moved and hasattr(_LIBC, "malloc_trim"):
            _LIBC["malloc_trim"](0)  # what was left is free, but still this process's

    def _move_block(self) -> None:
        """Move the small state, which is equal, to memory that maps the file."""
        if self._block_bytes:
            places = [self._at[id(piece)] - self._block_at for piece in self.plan.block]
            block = Block(self.plan.block, places, self._block_bytes)
            block.map(self._fd, self._block_at)
            self._block = block
            self.copied += block.fill()

    def _map(self, fd: int, piece: Piece) -> None:
        offset = self._at[id(piece)] + piece.low - piece.address
        maps.map_over(piece.low, piece.high - piece.low, fd, offset)

    def _ends(self) -> Iterator[Tuple[int, int, int]]:
        """(mine, the file's, bytes) of all small parameters, then of the large tensors' ends: the same in
        all ranks."""
        for piece in self.plan.smalls:
            yield piece.address, self.base + self._at[id(piece)], piece.nbytes
        for piece in self.plan.bigs:
            at = self._at[id(piece)]
            head = -at % PAGE
            body = (at + piece.nbytes) // PAGE * PAGE - at
            yield piece.address, self.base + at, head
            yield piece.address + body, self.base + at + body, piece.nbytes - body

    def _alias(self, piece: Piece) -> torch.Tensor:
        memory: Any = (ctypes.c_ubyte * piece.nbytes).from_address(self.base + self._at[id(piece)])
        own = piece.own
        return torch.frombuffer(memory, dtype=own.dtype).as_strided(own.size(), own.stride())


def _copy(targets: List[int], sources: List[int], sizes: List[int]) -> None:
    deque(map(_memmove, targets, sources, sizes), 0)
