"""The canonical reduction: one fixed binary tree over the ranks of a group, wherever they are.

A range of ``n`` ranks splits at the largest power of two below ``n``. A node combines the largest whole
subtrees whose ranks it has; since every node does its part of the same tree, every placement gives the same
bits.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np

from midstep.mailbox.tree import split
from midstep.proxy.arithmetic import Kernel

Range = tuple[int, int]
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_BLOCK_BYTES = 256 << 10  # what is combined at a time, so that partial results stay in the cache


@lru_cache(maxsize=4096)
def subtrees(size: int, members: tuple[int, ...]) -> tuple[Range, ...]:
    """The largest whole subtrees of a tree over ``size`` ranks that consist of ``members``, in order."""
    return tuple(_subtrees(0, size, frozenset(members)))


def _subtrees(low: int, high: int, members: Collection[int]) -> list[Range]:
    if all(rank in members for rank in range(low, high)):
        return [(low, high)]
    if high - low == 1:
        return []
    middle = split(low, high)
    return _subtrees(low, middle, members) + _subtrees(middle, high, members)


def reduce(kernel: Kernel, pieces: Mapping[Range, Bytes], whole: Range, outs: list[Bytes], last: int) -> None:
    """Combine ``pieces``, which cover ``whole``, into the first of ``outs`` and copy it to the others.

    ``last`` is the divisor of AVG when this completes the tree, else 1. All arrays have the same length.
    """
    nbytes = len(outs[0])
    if nbytes <= _BLOCK_BYTES:
        _block(kernel, pieces, whole, outs, last)
        return
    for start in range(0, nbytes, _BLOCK_BYTES):
        end = start + _BLOCK_BYTES
        part = {key: piece[start:end] for key, piece in pieces.items()}
        _block(kernel, part, whole, [out[start:end] for out in outs], last)


def _block(kernel: Kernel, pieces: Mapping[Range, Bytes], whole: Range, outs: list[Bytes], last: int) -> None:
    out = outs[0]
    if not len(out):
        return
    if len(pieces) == 2 and whole not in pieces:
        (_, first), (_, second) = sorted(pieces.items(), key=_place)
        kernel.combine(first, second, out)
    else:
        result = _fold(kernel, pieces, whole[0], whole[1], out, 0)
        if result is not out:
            out[:] = result
    if last > 1:
        kernel.divide(out, last)
    for other in outs[1:]:
        other[:] = out


def _place(item: tuple[Range, Bytes]) -> Range:
    return item[0]


def _fold(
    kernel: Kernel, pieces: Mapping[Range, Bytes], low: int, high: int, out: Bytes, depth: int
) -> Bytes:
    """The value of a subtree: a piece as it is, or combined in ``out``."""
    piece = pieces.get((low, high))
    if piece is not None:
        return piece
    middle = split(low, high)
    left = _fold(kernel, pieces, low, middle, out, depth + 1)
    right_piece = pieces.get((middle, high))
    if right_piece is None:
        right_piece = _fold(kernel, pieces, middle, high, _scratch(depth, len(out)), depth + 1)
    kernel.combine(left, right_piece, out)
    return out


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.all: list[Bytes] = []


_buffers = _Buffers()


def _scratch(depth: int, nbytes: int) -> Bytes:
    buffers = _buffers.all
    while len(buffers) <= depth:
        buffers.append(np.empty(_BLOCK_BYTES, np.uint8))
    return buffers[depth][:nbytes]
