"""Blocks of the mailbox: free lists by size class over a file that grows by segments.

A block never crosses a segment's end, and is reused last in, first out, so that a busy one stays in the
cache. Standard library only. Not locked: the channel's lock guards it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Dict, List

from .layout import HEAP_AT, SEGMENT_BYTES, MailboxMap

_SMALLEST = 8  # 256 bytes
LARGEST_BYTES = SEGMENT_BYTES
_PAGE, _MADV_REMOVE = 4096, 9

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Heap:
    """Gives out offsets of blocks."""

    def __init__(self, file: MailboxMap) -> None:
        self._file = file
        self._free: Dict[int, List[int]] = {}
        self._next = HEAP_AT
        self._end = SEGMENT_BYTES

    def take(self, nbytes: int) -> int:
        """An unused block of at least ``nbytes``; raises MemoryError over LARGEST_BYTES, OSError when none
        can be had."""
        size_class = size_class_of(nbytes)
        free = self._free.get(size_class)
        if free:
            return free.pop()
        return self._carve(1 << size_class)

    def give(self, offset: int, nbytes: int) -> None:
        """Return a block that was taken with ``nbytes``."""
        self._free.setdefault(size_class_of(nbytes), []).append(offset)

    def shed(self) -> None:
        """Give the pages of unused blocks back to the system. They are zeros, and new, when used again."""
        for size_class, free in self._free.items():
            size = 1 << size_class
            if size >= _PAGE:
                for offset in free:
                    _madvise(self._file.address(offset), size, _MADV_REMOVE)

    def _carve(self, size: int) -> int:
        if size > LARGEST_BYTES:
            raise MemoryError(
                "a mailbox block of %d bytes was asked for; the largest has %d" % (size, LARGEST_BYTES)
            )
        align = min(size, 4096)
        start = (self._next + align - 1) & ~(align - 1)
        if start + size > self._end:
            start = self._file.mapped
            os.ftruncate(self._file.fd, start + SEGMENT_BYTES)
            self._file.follow()
            self._end = start + SEGMENT_BYTES
        self._next = start + size
        return start


def size_class_of(nbytes: int) -> int:
    """The power of two that holds ``nbytes``."""
    return max(_SMALLEST, (nbytes - 1).bit_length()) if nbytes > 1 else _SMALLEST
