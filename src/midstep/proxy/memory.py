"""Reading and writing another process's memory, and threads that share the work of it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

_LIBC = ctypes.CDLL(None, use_errno=True)
_read, _write = _LIBC.process_vm_readv, _LIBC.process_vm_writev
for _call in (_read, _write):
    _long = ctypes.c_ulong
    _call.argtypes = (ctypes.c_int, ctypes.c_void_p, _long, ctypes.c_void_p, _long, _long)
    _call.restype = ctypes.c_ssize_t
_MOST_HELPERS = 3


class Transfer:
    """Copies between this process and others. For one thread at a time."""

    def __init__(self) -> None:
        self._spans = (ctypes.c_uint64 * 4)()  # two struct iovec: here, there
        self._here = ctypes.addressof(self._spans)
        self._there = self._here + 16

    def read(self, pid: int, there: int, here: int, nbytes: int) -> None:
        """Copy from a process's memory at ``there``; raises OSError."""
        self._spans[:] = (here, nbytes, there, nbytes)
        self._check(_read(pid, self._here, 1, self._there, 1, 0), nbytes)

    def write(self, pid: int, there: int, here: int, nbytes: int) -> None:
        """Copy to a process's memory at ``there``; raises OSError."""
        self._spans[:] = (here, nbytes, there, nbytes)
        self._check(_write(pid, self._here, 1, self._there, 1, 0), nbytes)

    def _check(self, moved: int, nbytes: int) -> None:
        if moved != nbytes:
            number = ctypes.get_errno() if moved < 0 else 14  # EFAULT: the rest is not there
            raise OSError(number, os.strerror(number))


class Helpers:
    """Threads beside the engine's own, as many as there are further processors for them."""

    def __init__(self) -> None:
        self._count = min(_MOST_HELPERS, len(os.sched_getaffinity(0)) - 1)
        self._started = 0
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def share(self, parts: list[Callable[[], None]]) -> None:
        """Call all ``parts``, which raise nothing, in any order and thread; return when all are done."""
        left = deque(parts)
        done = threading.Semaphore(0)

        def work() -> None:
            while True:
                try:
                    part = left.popleft()
                except IndexError:
                    return
                try:
                    part()
                finally:
                    done.release()

        for _ in range(min(self._count, len(parts) - 1)):
            self._start()
            self._tasks.put(work)
        work()
        for _ in parts:
            done.acquire()

    def _start(self) -> None:
        if self._started < self._count:
            self._started += 1
            threading.Thread(target=self._run, name="proxy-helper", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._tasks.get()()
