"""Trace stopped processes, and have them make a system call of ours; nothing of the job's code is executed.

x86-64 only (`SUPPORTED`). What one thread traces no other can: all calls for a process, up to `detach`, come
from one thread, and when that thread ends the kernel lets go of what it still traces.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
from collections.abc import Generator
from typing import Any

from midstep.agent.drivers import kernel

SUPPORTED = platform.machine() == "x86_64"

CONT = 7
_GET_REGS, _SET_REGS = 12, 13
DETACH = 17
_SYSCALL = 24
_SET_OPTIONS = 0x4200
_GET_MESSAGE = 0x4201
SEIZE = 0x4206
INTERRUPT = 0x4207
_GET_MASK, _SET_MASK = 0x420A, 0x420B

EVENT_STOP = 128
_EVENT_CLONE = 3
ALL_CHILDREN = 0x40000000  # __WALL: threads and other people's children, too

_MARKS_CALLS, _TRACES_CLONES, _ENDS_WITH_US = 0x1, 0x8, 0x100000  # PTRACE_O_*
_CALL_STOP = signal.SIGTRAP | 0x80
_MASK_BYTES = 8
_ALL = (1 << 64) - 1
_STEPS = 256  # stops until a call has been made: there are not so many signals

_CLONE, _WAIT4 = 56, 61
_CLONE_FS, _CLONE_FILES, _CLONE_PARENT = 0x200, 0x400, 0x8000
_CALL = b"\x0f\x05"  # the instruction


_NAMES = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip


class Lost(OSError):
    """The process is gone, or does not do what is asked of it."""


class Registers(ctypes.Structure):
    """``user_regs_struct``."""

    _fields_ = [(name, ctypes.c_uint64) for name in _NAMES]


def request(what: int, pid: int, data: Any = 0, address: int = 0) -> None:
    """One of ptrace's requests. OSError."""
    if isinstance(data, int):
        data = ctypes.c_void_p(data)
    kernel.call("ptrace", ctypes.c_long(what), ctypes.c_int(pid), ctypes.c_void_p(address), data)


@contextlib.contextmanager
def traced(pid: int) -> Generator[Tracee]:
    """A stopped process, for calls of ours; afterwards it stands where it stood, stopped. OSError."""
    request(SEIZE, pid, _MARKS_CALLS | _TRACES_CLONES)
    try:
        os.waitpid(pid, ALL_CHILDREN)  # in the stop that it was in
        yield Tracee(pid)
    finally:
        with contextlib.suppress(OSError):
            request(DETACH, pid)


class Tracee:
    """One that this thread traces, and that stands still."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._at = _call_instruction(pid)

    def copy(self, beside: bool) -> Tracee:
        """A new process that stands still where this one does and has a copy of its memory, made by the
        kernel when either writes: its child, or (``beside``) its parent's. It shares the table of open files,
        so that what the job closes is closed. It never runs: it dies with this thread. OSError."""
        flags = _CLONE_FS | _CLONE_FILES | (_CLONE_PARENT if beside else 0)
        made: list[int] = []
        self._call(_CLONE, (flags, 0, 0, 0), made)
        if not made:
            raise Lost("no copy was made")
        child = made[0]
        os.waitpid(child, ALL_CHILDREN)
        request(_SET_OPTIONS, child, _MARKS_CALLS | _TRACES_CLONES | _ENDS_WITH_US)
        return Tracee(child)

    def bury(self, child: int) -> None:
        """Take note of the end of a child (its number in the process's own namespace) that the job does not
        know of. OSError."""
        self._call(_WAIT4, (child, 0, ALL_CHILDREN, 0), [])

    def _call(self, number: int, arguments: tuple[int, int, int, int], clones: list[int]) -> int:
        """The result; OSError by it. The process is as before."""
        before, mask = Registers(), ctypes.c_uint64()
        request(_GET_REGS, self.pid, ctypes.byref(before))
        request(_GET_MASK, self.pid, ctypes.byref(mask), _MASK_BYTES)
        ours = Registers.from_buffer_copy(before)
        ours.rip, ours.rax, ours.orig_rax = self._at, number, _ALL
        ours.rdi, ours.rsi, ours.rdx, ours.r10 = arguments
        ours.rsp = 0  # were it to run on, it would end there
        try:
            # The job's signals wait: their handlers must not see these registers.
            request(_SET_MASK, self.pid, ctypes.byref(ctypes.c_uint64(_ALL)), _MASK_BYTES)
            request(_SET_REGS, self.pid, ctypes.byref(ours))
            self._run_call(clones)
            after = Registers()
            request(_GET_REGS, self.pid, ctypes.byref(after))
        finally:
            request(_SET_REGS, self.pid, ctypes.byref(before))
            request(_SET_MASK, self.pid, ctypes.byref(mask), _MASK_BYTES)
        result = ctypes.c_int64(after.rax).value
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def _run_call(self, clones: list[int]) -> None:
        """Up to the end of the call."""
        stops = 0
        for _ in range(_STEPS):
            request(_SYSCALL, self.pid)
            _, status = os.waitpid(self.pid, ALL_CHILDREN)
            if not os.WIFSTOPPED(status):
                raise Lost("it has ended")
            if status >> 16 == _EVENT_CLONE:
                child = ctypes.c_ulong()
                request(_GET_MESSAGE, self.pid, ctypes.byref(child))
                clones.append(child.value)
            elif os.WSTOPSIG(status) == _CALL_STOP:
                stops += 1
                if stops == 2:  # in, and out
                    return
        raise Lost("it does not make the call")


def _call_instruction(pid: int) -> int:
    """Where one is, in the code that the kernel gives to every process."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        area = next((line.split()[0] for line in file if line.rstrip().endswith("[vdso]")), "")
    if not area:
        raise Lost("it has no code of the kernel's")
    start, end = (int(part, 16) for part in area.split("-"))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        at = os.pread(memory.fileno(), end - start, start).find(_CALL)
    if at < 0:
        raise Lost("the kernel's code makes no calls")
    return start + at
