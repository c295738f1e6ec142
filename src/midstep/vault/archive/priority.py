"""How much of the machine an archiver takes: what others leave, or its share when somebody waits for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Generator

_NICEST, _USUAL = 19, 0
_IO_IDLE = 3 << 13  # the disk when nobody else wants it
_IO_USUAL = 0  # like others, by the processor's priority
_LOOK_S = 1.0
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


def be_modest() -> None:
    """This process takes what others leave of the processor and the disk, and a hundredth besides: raw
    folders must not pile up where jobs leave nothing."""
    with contextlib.suppress(PermissionError):  # it leads a group already: whoever calls it by hand
        os.setsid()
    _set_all(os.getpid(), _NICEST, _IO_IDLE)


def hasten(pid: int) -> None:
    """Have a process take the processor and the disk like others from now on. Harmless when it is gone, or
    when we may not."""
    _set_all(pid, _USUAL, _IO_USUAL)


@contextlib.contextmanager
def in_nobodys_way(awaited: Callable[[], bool], every_s: float = _LOOK_S) -> Generator[None]:
    """For work that keeps writers out: as soon as one waits, which may have a job standing still, go on like
    others. ``awaited`` is asked by a thread, and raises nothing."""
    before, ended = os.getpriority(os.PRIO_PROCESS, 0), threading.Event()

    def look() -> None:
        while not ended.wait(every_s):
            if awaited():
                hasten(os.getpid())
                return

    thread = threading.Thread(target=look, name="vault-haste", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if before == _NICEST:
            be_modest()


def _set_all(pid: int, nice: int, io: int) -> None:
    """Each thread has a priority of its own, and those that it starts begin with it; so have processes."""
    _weigh_session(pid, nice)
    libc, number = ctypes.CDLL(None), _IOPRIO_SET.get(os.uname().machine)
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(thread), nice)
            if number:
                libc.syscall(number, 1, int(thread), io)  # a kernel that refuses: the processor's share holds
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as children:
                for child in children.read().split():
                    _set_all(int(child), nice, io)


def _weigh_session(pid: int, nice: int) -> None:
    """Where the kernel gives each session its share (autogroup), threads' priorities say nothing to other
    sessions."""
    with contextlib.suppress(OSError):
        if os.getsid(pid) == pid:
            with open(f"/proc/{pid}/autogroup", "w") as file:
                file.write(str(nice))
