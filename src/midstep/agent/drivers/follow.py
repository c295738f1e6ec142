"""Follow a rank that runs, by nothing but /proc and its exit file: the agent may have restarted since."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass

from midstep.agent.drivers.cell import Home
from midstep.agent.drivers.errors import RankGone, TooSlow


@dataclass(frozen=True, slots=True)
class RankProcess:
    """PID 1 of a rank as the agent sees it, and when it started (clock ticks since boot): together they
    never recur.
    """

    rank: int
    init_pid: int
    started: int


def alive(p: RankProcess) -> bool:
    """Whether the rank's PID 1 still runs. Reaps it when it has ended and is ours to reap."""
    state = state_of(p)
    if state == "Z":
        with contextlib.suppress(ChildProcessError):
            os.waitpid(p.init_pid, os.WNOHANG)
    return state not in ("", "Z", "X")


def exit_status(home: Home, rank: int) -> int | None:
    """The command's exit status (128 + n when signal n ended it); None while it runs, and when it was
    killed from outside.
    """
    try:
        return int((home.path / "run" / f"exit-{rank}").read_text())
    except (FileNotFoundError, ValueError):
        return None


def find_main(p: RankProcess) -> int | None:
    """The pid of the job's command as seen here: the oldest child of PID 1; None once it has ended."""
    there = children(p.init_pid)
    return min(there, key=started_at) if there else None


def processes(p: RankProcess) -> list[int]:
    """All pids of the rank as seen here, PID 1 first and parents before children; empty when it is gone.

    Exact only when the rank is frozen: what runs can fork behind our back.
    """
    if not alive(p):
        return []
    found = [p.init_pid]
    for pid in found:  # grows while we walk
        found += children(pid)
    return found


def kill(p: RankProcess, deadline_s: float = 5) -> None:
    """Kill PID 1, with which its namespace dies, and wait until nothing is left of it. TooSlow when
    something stays.

    The kernel lets PID 1 of a namespace end last: when its descriptor says so, the memory, the files and the
    devices of all others have been given back.
    """
    try:
        descriptor = os.pidfd_open(p.init_pid)
    except ProcessLookupError:
        return
    try:
        if not alive(p):  # looked at after the descriptor was opened: the number is not somebody else's
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        if not ended.poll(deadline_s * 1e3):
            raise TooSlow(
                f"rank {p.rank} (pid {p.init_pid}) has not died in {deadline_s:g} s: stuck in the kernel"
            )
    finally:
        os.close(descriptor)
    alive(p)  # reaps it


def process_at(rank: int, pid: int) -> RankProcess:
    """Name the running process `pid` as PID 1 of a rank; RankGone if it has ended."""
    try:
        return RankProcess(rank, pid, started_at(pid))
    except OSError:
        raise RankGone(f"rank {rank} (pid {pid}) has ended already") from None


def stat_of(path: str) -> list[str]:
    """The fields of a /proc stat file from the third on (0: state, 1: parent, 19: start time)."""
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def started_at(pid: int) -> int:
    return int(stat_of(f"/proc/{pid}/stat")[19])


def inner_pid(pid: int) -> int:
    """Its pid in the rank's own namespace; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def state_of(p: RankProcess) -> str:
    try:
        fields = stat_of(f"/proc/{p.init_pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return fields[0] if int(fields[19]) == p.started else ""


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                    found += map(int, file.read().split())
    return found
