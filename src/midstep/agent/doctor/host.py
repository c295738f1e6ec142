"""Kernel, rights, memory, disk: facts are read in `examine_host`, judged by the pure functions below it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from midstep.agent.doctor.finding import Finding, Status, Tried, attempt

GIB = 1 << 30
OLDEST_KERNEL = (5, 16)  # the first with futex_waitv; time namespaces and CAP_CHECKPOINT_RESTORE are older
ARCHITECTURES = ("x86_64", "aarch64")
CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_SYS_PTRACE": 19, "CAP_NET_ADMIN": 12, "CAP_CHECKPOINT_RESTORE": 40}
FUTEX_WAITV = 449  # the same number on every architecture


def examine_host(state_folder: Path) -> list[Finding]:
    """`state_folder` is where snapshots will lie; it need not exist yet."""
    return [
        judge_kernel(platform.release()),
        judge_architecture(platform.machine()),
        judge_rights(os.geteuid(), read_effective_capabilities()),
        judge_futex(has_futex_waitv()),
        judge_memfd(try_memfd()),
        judge_personality(attempt(["setarch", "-R", "true"])),
        judge_memory(read_available_bytes()),
        judge_disk(state_folder, shutil.disk_usage(_nearest(state_folder)).free),
    ]


def judge_kernel(release: str) -> Finding:
    number = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if number >= OLDEST_KERNEL:
        return Finding("kernel", "Linux kernel", release, Status.OK)
    return Finding("kernel", "Linux kernel", release, Status.BAD, "boot Linux 5.16 or newer")


def judge_architecture(machine: str) -> Finding:
    if machine in ARCHITECTURES:
        return Finding("architecture", "architecture", machine, Status.OK)
    return Finding(
        "architecture", "architecture", machine, Status.BAD, f"use one of {', '.join(ARCHITECTURES)}"
    )


def judge_rights(uid: int, effective: int) -> Finding:
    lacking = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    who = "root" if uid == 0 else f"user {uid}"
    if not lacking:
        return Finding("rights", "rights", f"{who}, {', '.join(CAPABILITIES)}", Status.OK)
    todo = "run agents as root; in a container, give it --privileged"
    return Finding("rights", "rights", f"{who} without {', '.join(lacking)}", Status.BAD, todo)


def judge_futex(there: bool) -> Finding:
    if there:
        return Finding("futex_waitv", "futex_waitv", "yes", Status.OK)
    todo = "boot Linux 5.16 or newer, or let the container's seccomp filter pass it"
    return Finding("futex_waitv", "futex_waitv", "no", Status.BAD, todo)


def judge_memfd(error: str) -> Finding:
    if not error:
        return Finding("memfd", "memfd, with holes", "yes", Status.OK)
    return Finding(
        "memfd",
        "memfd, with holes",
        error,
        Status.BAD,
        "let the container's seccomp filter pass memfd_create",
    )


def judge_personality(tried: Tried) -> Finding:
    what = "fixed addresses"
    if tried.ok:
        return Finding("personality", what, "yes (ADDR_NO_RANDOMIZE)", Status.OK)
    todo = "let the seccomp filter pass personality(2), else ranks share less memory in snapshots"
    return Finding("personality", what, tried.words, Status.WARN, todo)


def judge_memory(available_bytes: int) -> Finding:
    found = f"{available_bytes / GIB:.1f} GiB available"
    if available_bytes >= 2 * GIB:
        return Finding("memory", "memory", found, Status.OK)
    return Finding(
        "memory", "memory", found, Status.WARN, "a rank that uses torch needs about 0.5 GiB: stop something"
    )


def judge_disk(folder: Path, free_bytes: int) -> Finding:
    found = f"{free_bytes / GIB:.1f} GiB free for {folder}"
    todo = "a snapshot needs the job's memory once more: free some space, or give another state folder"
    if free_bytes >= 10 * GIB:
        return Finding("disk", "disk", found, Status.OK)
    return Finding("disk", "disk", found, Status.WARN if free_bytes >= GIB else Status.BAD, todo)


def lacks_rights(findings: Sequence[Finding]) -> bool:
    return any(row.key == "rights" and row.status is Status.BAD for row in findings)


def read_effective_capabilities() -> int:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found.group(1), 16) if found else 0


def has_futex_waitv() -> bool:
    """Called with nothing to wait for, a kernel that has it says EINVAL."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(FUTEX_WAITV, None, 0, 0, None, 0)
    return ctypes.get_errno() == errno.EINVAL


def try_memfd() -> str:
    """Make one, write, punch a hole; empty when that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    keep_size_and_punch_hole = 0x01 | 0x02
    try:
        fd = os.memfd_create("midstep-doctor")
    except OSError as error:
        return str(error)
    try:
        os.write(fd, b"\1" * 8192)
        if libc.fallocate(fd, keep_size_and_punch_hole, ctypes.c_long(0), ctypes.c_long(4096)):
            return f"fallocate: {os.strerror(ctypes.get_errno())}"
        return "" if os.pread(fd, 1, 0) == b"\0" else "the hole was not zero"
    finally:
        os.close(fd)


def read_available_bytes() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _nearest(folder: Path) -> Path:
    """The folder, or the closest one above that exists."""
    return next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
