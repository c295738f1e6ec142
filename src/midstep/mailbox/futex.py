"""Futexes on shared words, through ctypes. Standard library only.

Every wait is bounded: a process may be frozen, dumped and restored in the middle of one, and a wake that
happened meanwhile is then found by looking at the word again. Waits return early whenever they like; callers
loop.
"""

from __future__ import annotations

import ctypes
import platform
import time
from typing import Sequence

SLICE_S = 0.5  # the longest single wait

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(
    platform.machine(), 202
)
_SYS_FUTEX_WAITV = 449
_WAIT, _WAKE, _WAKE_OP = 0, 1, 5
_NEVER = 0xFFFFFFFF
_BOTH = 2 << 28 | 1 << 24 | 0 << 12 | 0xFFF  # of two: the second's word is or-ed with 0; it was not _NEVER
_EVERYBODY = 0x7FFFFFFF
_WAITV_MOST = 128
_FUTEX_32 = 2

_futex = _LIBC["syscall"]
_futex.argtypes = (
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint,
)
_futex.restype = ctypes.c_long
_waitv = _LIBC["syscall"]
_waitv.argtypes = (
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_int,
)
_waitv.restype = ctypes.c_long
_TimeSpec = ctypes.c_long * 2
_SLICE = _TimeSpec(int(SLICE_S), int(SLICE_S % 1 * 1e9))


def wait(address: int, expected: int, timeout_s: float = SLICE_S) -> None:
    """Sleep while the 32-bit word at ``address`` holds ``expected``, at most ``timeout_s`` and never over
    SLICE_S."""
    span = _SLICE if timeout_s >= SLICE_S else _TimeSpec(0, max(0, int(timeout_s * 1e9)))
    _futex(_SYS_FUTEX, address, _WAIT, expected, span, None, 0)


def wake(address: int) -> None:
    """Wake everybody who waits on the word at ``address``, in any process."""
    _futex(_SYS_FUTEX, address, _WAKE, _EVERYBODY, None, None, 0)


def wake_all(addresses: Sequence[int]) -> None:
    """As ``wake`` for each, two with one call: whoever wakes up first does not keep the others from it by
    taking the waker's processor."""
    rest = list(addresses)
    while len(rest) > 1:
        first, second = rest.pop(), rest.pop()
        if ctypes.c_uint32.from_address(second).value == _NEVER:
            rest.append(first)
            wake(second)
        else:
            _futex(_SYS_FUTEX, first, _WAKE_OP, _EVERYBODY, _EVERYBODY, second, _BOTH)
    if rest:
        wake(rest[0])


class _Entry(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class WaitMany:
    """Waits on many words at once: ``futex_waitv`` (Linux 5.16+), else short polls of the first word."""

    def __init__(self, addresses: Sequence[int]) -> None:
        self._addresses = list(addresses)
        count = min(len(addresses), _WAITV_MOST)
        self._entries = (_Entry * max(1, count))()
        for entry, address in zip(self._entries, addresses):
            entry.address, entry.flags = address, _FUTEX_32
        self._count = count
        self._whole = len(addresses) <= _WAITV_MOST and _waitv_works()

    def wait(self, values: Sequence[int], timeout_s: float) -> None:
        """Sleep while every word holds its value; returns early at the first change (or a little later, see
        above)."""
        entries = self._entries
        if not self._whole:
            wait(self._addresses[0], values[0], min(timeout_s, 0.001))
            return
        for k, value in enumerate(values):
            entries[k].value = value
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        span = _TimeSpec(until_ns // 1_000_000_000, until_ns % 1_000_000_000)
        _waitv(_SYS_FUTEX_WAITV, entries, self._count, 0, span, time.CLOCK_MONOTONIC)


_works: list[bool] = []


def _waitv_works() -> bool:
    if not _works:
        word = ctypes.c_uint32(1)
        entry = (_Entry * 1)(_Entry(0, ctypes.addressof(word), _FUTEX_32, 0))
        span = _TimeSpec(0, 0)
        _waitv(_SYS_FUTEX_WAITV, entry, 1, 0, span, time.CLOCK_MONOTONIC)
        _works.append(ctypes.get_errno() == 11)  # EAGAIN: the word differs, so the call exists
    return _works[0]
