"""Which /proc a rank sees.

The job wants the one of its own PID namespace: `ps`, psutil and PID files then agree with getpid(). CRIU,
which runs in the same mount namespace, wants the node's: it finds its processes there by the node's
numbers. So the node's is laid over the rank's own while CRIU works on the stopped rank, and taken off
before the rank goes on.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from midstep.agent.drivers import kernel
from midstep.agent.drivers.errors import DriverError

_MOUNT = ("mount", "-n", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", "/proc")


def mount_proc() -> None:
    """Mount the /proc of the PID namespace that children of this thread are born into.

    The kernel takes the caller's own namespace, and only a child of this thread is in the other one.
    """
    done = subprocess.run(_MOUNT, capture_output=True, check=False)
    if done.returncode:
        raise DriverError(
            f"cannot mount the rank's own /proc: {done.stderr.decode(errors='replace').strip()}"
        )


def enter_with_node_proc(init_pid: int) -> None:
    """Take this thread (see `kernel.apart`) into a rank's mounts, with the node's /proc on top. OSError if
    it is gone.
    """
    node_proc = kernel.copy_of_mount("/proc")
    try:
        kernel.enter(f"/proc/{init_pid}/ns/mnt", kernel.CLONE_NEWNS)
        kernel.attach_mount(node_proc, "/proc")
    finally:
        os.close(node_proc)


def sees_node(init_pid: int) -> bool:
    """Whether the node's /proc is on top: there we find ourselves, in the rank's own we do not."""
    return os.path.exists(f"/proc/{init_pid}/root/proc/self")


def give_own_proc(init_pid: int) -> None:
    """See to it that a stopped rank has its own /proc on top, whatever happened to it before. OSError if it
    is gone. What shares our mounts is no rank in a cell, and its /proc is everybody's: left alone.
    """
    if sees_node(init_pid) and not _shares_mounts(init_pid):
        kernel.apart(lambda: _give_own_proc(init_pid), f"proc-{init_pid}")


def _shares_mounts(pid: int) -> bool:
    return os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt")


def _give_own_proc(init_pid: int) -> None:
    pids = os.open(f"/proc/{init_pid}/ns/pid", os.O_RDONLY)
    try:
        kernel.enter(f"/proc/{init_pid}/ns/mnt", kernel.CLONE_NEWNS)
        while Path("/proc/self").exists():
            kernel.unmount("/proc")
        if not Path("/proc/1").exists():  # a restored rank: there was none below
            kernel.enter_fd(pids, kernel.CLONE_NEWPID)
            mount_proc()
    finally:
        os.close(pids)
