"""What a rank holds that CRIU would dump and then not restore, or that stays behind unnoticed.

It is looked for before CRIU starts: some of it CRIU would only notice at the restore, when the job is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from midstep.agent.drivers.cell import CELL
from midstep.agent.drivers.errors import Blame, Kind, Refusal, Refused

_NAMESPACES = ("mnt", "net", "uts", "ipc", "user", "pid", "cgroup")
_CARRIED = (f"{CELL}/", "/tmp/", "/dev/", "/proc/", "/sys/", "/memfd:")
_GONE = (FileNotFoundError, ProcessLookupError)
_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True, slots=True)
class Held:
    written: tuple[str, ...]  # files outside of the home that the rank may write to: they are not carried
    nameless: bool  # it has files open that lost the name they were opened by, and have another


def inspect(init_pid: int, pids: list[int]) -> Held:
    """Look through all processes of a frozen rank. Refused for what cannot be restored."""
    _refuse_mounts(init_pid)
    ours = _namespaces(init_pid)
    written: set[str] = set()
    nameless = False
    for pid in pids:
        with contextlib.suppress(*_GONE):
            _refuse_namespaces(pid, ours)
        for number, target in _descriptors(pid):
            if target.partition(":[")[0] in _NAMESPACES:
                raise _refused(Kind.NAMESPACE, pid, f"has a namespace open ({target}, descriptor {number})")
            if target.endswith(" (deleted)"):
                nameless = nameless or os.stat(f"/proc/{pid}/fd/{number}").st_nlink > 0
            elif _is_left_behind(pid, number, target):
                written.add(target)
    return Held(tuple(sorted(written)), nameless)


def _refuse_mounts(init_pid: int) -> None:
    with open(f"/proc/{init_pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4] for line in file]
    for point in points:
        if point.startswith((f"{CELL}/", "/dev/shm/")) and point != f"{CELL}/shm":
            raise _refused(Kind.MOUNT, init_pid, f"has mounted something at {point}")


def _refuse_namespaces(pid: int, ours: dict[str, str]) -> None:
    for kind, name in _namespaces(pid).items():
        if name != ours[kind]:
            what = f"has a {kind} namespace of its own (unshare, bubblewrap, a container)"
            raise _refused(Kind.NAMESPACE, pid, what)


def _namespaces(pid: int) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _NAMESPACES}


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(*_GONE):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(*_GONE):
                yield number, os.readlink(f"/proc/{pid}/fd/{number}")


def _is_left_behind(pid: int, number: str, target: str) -> bool:
    if not target.startswith("/") or target.startswith(_CARRIED):
        return False
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    return bool(flags & _WRITES)


def _refused(kind: Kind, pid: int, what: str) -> Refused:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except _GONE:
        name = "?"
    return Refused(Refusal(kind, Blame.JOB, f"the process {name} {what}; that cannot move", f"pid {pid}"))
