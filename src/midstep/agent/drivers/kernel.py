"""The few system calls that Python 3.11 does not have, and a thread of its own to make them in.

Namespaces belong to a thread, not to a process: a thread that has left the agent's mount namespace can
start a child in the other one directly, and then end. So no helper process stands between the agent and
CRIU or a rank, and nothing is exec'd only to enter a namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from midstep.agent.drivers.errors import NoRights

CLONE_FS = 0x00000200
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

ADDR_NO_RANDOMIZE = 0x40000

_SYS_OPEN_TREE = 428  # the same on every architecture
_SYS_MOVE_MOUNT = 429
_AT_FDCWD = -100
_PDEATHSIG = 1
_TREE_CLONE = 1
_FROM_FD = 4  # MOVE_MOUNT_F_EMPTY_PATH

_libc = ctypes.CDLL(None, use_errno=True)
_RIGHTS = (errno.EPERM, errno.EACCES)

T = TypeVar("T")


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "make a namespace")


def enter(path: str, kind: int) -> None:
    """Take this thread into the namespace at `path`, such as /proc/PID/ns/mnt; OSError if that process is
    gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_fd(fd, kind)
    finally:
        os.close(fd)


def enter_fd(fd: int, kind: int) -> None:
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "enter a namespace")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    args = (
        source.encode(),
        target.encode(),
        kind and kind.encode(),
        ctypes.c_ulong(flags),
        data and data.encode(),
    )
    _check(_libc.mount(*args), f"mount {source} on {target}")


def unmount(target: str) -> None:
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"unmount {target}")


def copy_of_mount(path: str) -> int:
    """A descriptor of a copy of the mount at `path`, to be attached in another mount namespace."""
    fd = _libc.syscall(
        _SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), path.encode(), ctypes.c_uint(_TREE_CLONE | os.O_CLOEXEC)
    )
    _check(fd, f"copy the mount of {path}")
    return fd


def attach_mount(fd: int, path: str) -> None:
    at = ctypes.c_int(_AT_FDCWD)
    _check(
        _libc.syscall(_SYS_MOVE_MOUNT, ctypes.c_int(fd), b"", at, path.encode(), ctypes.c_uint(_FROM_FD)),
        f"mount {path}",
    )


def personality(value: int) -> None:
    """For this thread, and for what it starts."""
    _check(_libc.personality(ctypes.c_ulong(value)), "set the personality")


def call(name: str, *args: object) -> int:
    """Any other function of the C library that sets errno; OSError by it."""
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def end_with_parent() -> None:
    """Die when whoever started this process does."""
    parent = os.getppid()
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def apart(work: Callable[[], T], name: str) -> T:
    """Run `work` in a new thread that has a root and a working folder of its own and is thrown away
    afterwards.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            unshare(CLONE_FS)
            result.append(work())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _check(result: int, doing: str) -> None:
    if result >= 0:
        return
    code = ctypes.get_errno()
    if code in _RIGHTS:
        raise NoRights(
            f"no right to {doing}: {os.strerror(code)}; run the agent as root (midstep doctor says more)"
        )
    raise OSError(code, f"cannot {doing}: {os.strerror(code)}")
