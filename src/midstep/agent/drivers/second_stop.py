"""Take back the second SIGSTOP that CRIU leaves pending in a stopped process.

CRIU sends one when it lets go of a process that was stopped before. It stays pending, and the next CRIU
that comes while the process still stands takes it for a fault ("Unexpected task interruption"). It cannot
be ignored away without SIGCONT, with which the process would run; so we trace the process, let it take the
signal, and drop it: no instruction of the job is executed.
"""

from __future__ import annotations

import contextlib
import os
import signal

from midstep.agent.drivers.ptrace import (
    ALL_CHILDREN,
    CONT,
    DETACH,
    EVENT_STOP,
    INTERRUPT,
    SEIZE,
    request,
)

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
    request(SEIZE, pid)
    try:
        for _ in range(_TURNS):
            taken = _next_signal(pid)
            request(INTERRUPT, pid)  # so that it stops again before it gets to user code
            if taken == signal.SIGSTOP:
                request(CONT, pid)
                os.waitpid(pid, ALL_CHILDREN)
                return
            request(CONT, pid, taken)  # one that was pending before it: delivered, as it would have been
    finally:
        request(DETACH, pid)  # into the stop that it was in


def _next_signal(pid: int) -> int:
    """Let it go on to the next signal that it takes. One is pending: until then it stays in the kernel."""
    while True:
        _, status = os.waitpid(pid, ALL_CHILDREN)
        if status >> 16 != EVENT_STOP:
            return os.WSTOPSIG(status)
        request(CONT, pid)
