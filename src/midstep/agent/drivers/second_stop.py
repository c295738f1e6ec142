"""Take back the second SIGSTOP that CRIU leaves pending in a stopped process.

CRIU sends one when it lets go of a process that was stopped before. It stays pending, and the next CRIU
that comes while the process still stands takes it for a fault ("Unexpected task interruption"). It cannot
be ignored away without SIGCONT, with which the process would run; so we trace the process, let it take the
signal, and drop it: no instruction of the job is executed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from midstep.agent.drivers import kernel

_CONT = 7
_DETACH = 17
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_EVENT_STOP = 128
_ALL_CHILDREN = 0x40000000  # __WALL: threads and other people's children, too
_TURNS = 64  # there are no more signals than that


def drop(pids: list[int]) -> None:
    """Do so for all of these stopped processes that have one pending."""
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone, or somebody else traces it: CRIU will say so
            if _pending(pid) >> (signal.SIGSTOP - 1) & 1:
                _drop(pid)


def _pending(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("ShdPnd:"))


def _drop(pid: int) -> None:
    _ptrace(_SEIZE, pid)
    try:
        for _ in range(_TURNS):
            taken = _next_signal(pid)
            _ptrace(_INTERRUPT, pid)  # so that it stops again before it gets to user code
            if taken == signal.SIGSTOP:
                _ptrace(_CONT, pid)
                os.waitpid(pid, _ALL_CHILDREN)
                return
            _ptrace(_CONT, pid, taken)  # one that was pending before it: delivered, as it would have been
    finally:
        _ptrace(_DETACH, pid)  # into the stop that it was in


def _next_signal(pid: int) -> int:
    """Let it go on to the next signal that it takes. One is pending: until then it stays in the kernel."""
    while True:
        _, status = os.waitpid(pid, _ALL_CHILDREN)
        if status >> 16 != _EVENT_STOP:
            return os.WSTOPSIG(status)
        _ptrace(_CONT, pid)


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    kernel.call(
        "ptrace", ctypes.c_long(request), ctypes.c_int(pid), ctypes.c_void_p(0), ctypes.c_void_p(data)
    )
