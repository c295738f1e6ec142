"""Moving an optimizer's state to other memory."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import weakref
from typing import Any, List

import torch

from . import maps
from .plan import Piece

_blocks: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()  # by address: memory


class Block:
    """Memory of this rank for many small tensors, mapped as a whole; it lives while one of them does."""

    def __init__(self, pieces: List[Piece], places: List[int], nbytes: int) -> None:
        """Take what the tensors are in from an earlier time, if they are, or new memory."""
        self._pieces, self._places, self.nbytes = pieces, places, nbytes
        starts = {piece.address - place for piece, place in zip(pieces, places)}
        memory = _blocks.get(starts.pop())
        self._there = memory is not None and not starts and len(memory) == nbytes
        self._memory: Any = memory if self._there else maps.fresh_memory(nbytes)
        self.address: int = torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()
        _blocks[self.address] = self._memory

    def map(self, fd: int, at: int) -> None:
        """Map a file there from ``at`` on, of equal content if the tensors are here. Raises OSError."""
        maps.map_over(self.address, self.nbytes, fd, at)

    def fill(self) -> List[Piece]:
        """Move the tensors here, where the memory has their content already; those that cannot be moved."""
        if self._there:
            for piece in self._pieces:
                piece.moved = True
            return []
        return [p for p, place in zip(self._pieces, self._places) if not move(p, self._memory, place)]


def move(piece: Piece, memory: Any, place: int) -> bool:
    """Move a state tensor to a place in other memory, if torch knows of no other name for it; whether it was.
    Never a parameter: code in C may keep its address, which nobody can see."""
    own: Any = piece.own
    storage = own.untyped_storage()
    count: Any = getattr(torch._C, "_storage_Use_Count", None)  # pyright: ignore[reportPrivateUsage]
    # known to: the tensor, our own handle on it, and the object asked for just now
    if piece.is_param or count is None or count(storage._cdata) > 3 or storage.nbytes() != piece.nbytes:
        return False
    # A storage that cannot be resized: nobody does that to an optimizer's state.
    flat = torch.frombuffer(memory, dtype=own.dtype, count=own.numel(), offset=place)
    moved = flat.as_strided(own.size(), own.stride())
    if not maps.equal(moved.data_ptr(), piece.address, piece.nbytes):
        moved.copy_(own)
    piece.move(moved)
    return True
