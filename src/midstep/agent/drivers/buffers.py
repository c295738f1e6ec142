"""Memory of the agent's into which pages of frozen ranks are copied, at the speed of memory.

Memory that was never written has to be found by the kernel first, page by page, which takes several times as
long as copying: so a buffer is written to before it is needed, while the ranks still run, and kept for the
next time. In between it is the kernel's to take whenever anybody asks for memory (MADV_FREE).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from midstep.agent.drivers.criu_images import PAGE_BYTES
from midstep.agent.drivers.follow import RankProcess
from midstep.agent.drivers.pages import PIECE_BYTES, PageFile, in_pieces, memory_of, write_pieces

_FREE, _DONT_FORK, _POPULATE_WRITE = 8, 10, 23  # MADV_*
_SLACK = 1.25  # ranks have somewhat more the next time
_MOST_FREE = 16  # kept
_ROOMY = 2  # times what is needed: no larger ones are taken for it
_VECTOR = 512

_libc = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = [("address", ctypes.c_void_p), ("nbytes", ctypes.c_size_t)]


class _Buffer:
    """Not a child's: a fork would have every page of it found anew. Children read it from outside."""

    def __init__(self, nbytes: int) -> None:
        self.memory = mmap.mmap(-1, max(PAGE_BYTES, nbytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.owner = os.getpid()
        self.advise(_DONT_FORK)

    def advise(self, advice: int, nbytes: int | None = None) -> None:
        """Where the kernel knows of it."""
        with contextlib.suppress(OSError):
            self.memory.madvise(advice, 0, len(self.memory) if nbytes is None else nbytes)

    def read(self, address: int, into: memoryview) -> None:
        """OSError: its process is gone."""
        ours = ctypes.addressof(ctypes.c_char.from_buffer(into))
        if _read(self.owner, [(address, len(into))], ours) < len(into):
            raise OSError("the copy of a rank's memory is gone")


class Buffers:
    """Of one agent."""

    def __init__(self) -> None:
        self._free: list[_Buffer] = []
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> _Buffer:
        """One of at least so many bytes, ready to be written to."""
        with self._lock:
            fits = [it for it in self._free if nbytes <= len(it.memory) <= _ROOMY * max(nbytes, PAGE_BYTES)]
            found = min(fits, key=lambda it: len(it.memory), default=None)
            if found is not None:
                self._free.remove(found)
        found = found or _Buffer(int(nbytes * _SLACK))
        found.advise(_POPULATE_WRITE, nbytes)
        return found

    def give_back(self, buffer: _Buffer) -> None:
        """Nobody needs its content any more."""
        buffer.advise(_FREE)
        with self._lock:
            self._free = [*self._free, buffer][-_MOST_FREE:]


class Copied:
    """`Pages` of one rank, in a buffer. ``expected``: about their bytes."""

    def __init__(self, buffers: Buffers, expected: int) -> None:
        self._buffers = buffers
        self._buffer: _Buffer | None = buffers.take(expected)
        self._files: list[tuple[PageFile, int]] = []  # and where it begins
        self._lock = threading.Lock()

    def take(self, p: RankProcess, images: Path, files: Sequence[PageFile]) -> None:
        """As `Pages` says."""
        nbytes = sum(file.nbytes for file in files)
        assert self._buffer is not None
        if nbytes > len(self._buffer.memory):
            self._buffers.give_back(self._buffer)
            self._buffer = self._buffers.take(nbytes)
        at, taken = 0, list[tuple[PageFile, int]]()
        for file in files:
            _copy(file, self._buffer, at)
            taken.append((file, at))
            at += file.nbytes
        self._files = taken

    @property
    def sizes(self) -> dict[str, int]:
        """As `Pages` says."""
        return {file.name: file.nbytes for file, _ in self._files}

    @property
    def descriptors(self) -> list[int]:
        """As `Pages` says."""
        return []

    def write(self, folder: Path, end: float) -> int:
        """As `Pages` says."""
        if self._buffer is None:
            raise OSError("the copy of a rank's memory is gone")
        buffer = self._buffer
        for file, at in self._files:
            write_pieces(folder / file.name, in_pieces(buffer.address + at, file.nbytes), buffer.read, end)
        return sum(self.sizes.values())

    def drop(self) -> None:
        """As `Pages` says."""
        with self._lock:
            buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._buffers.give_back(buffer)


def _copy(file: PageFile, buffer: _Buffer, at: int) -> None:
    """OSError: the process is gone."""
    runs = [(start, count * PAGE_BYTES) for start, count in file.runs]
    first = done = 0  # of the runs; bytes of that one
    while first < len(runs):
        parts = list(islice(runs, first, first + _VECTOR))
        parts[0] = (parts[0][0] + done, parts[0][1] - done)
        got = _read(file.pid, parts, buffer.address + at)
        if got <= 0:  # memory that it may not read itself
            got = _read_slowly(file.pid, parts[0], memoryview(buffer.memory)[at:])
        at += got
        done += got
        while first < len(runs) and done >= runs[first][1]:
            done -= runs[first][1]
            first += 1


def _read(pid: int, parts: list[tuple[int, int]], address: int) -> int:
    """Bytes that were read, from the first part on; -1: none can be."""
    theirs: Any = (_Part * len(parts))(*parts)
    ours = _Part(address, sum(nbytes for _, nbytes in parts))
    return int(
        _libc.process_vm_readv(
            ctypes.c_int(pid), ctypes.byref(ours), ctypes.c_ulong(1), theirs, ctypes.c_ulong(len(parts)),
            ctypes.c_ulong(0),
        )
    )  # fmt: skip


def _read_slowly(pid: int, part: tuple[int, int], into: memoryview) -> int:
    address, nbytes = part
    with memory_of(pid) as memory:
        got = os.preadv(memory, [into[: min(nbytes, PIECE_BYTES)]], address)
    if not got:
        raise OSError(f"the memory of process {pid} cannot be read")
    return got
