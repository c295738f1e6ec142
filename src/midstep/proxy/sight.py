"""What the kernel says about a rank's process: whether it computes, and how much it has."""

from __future__ import annotations

import os
import time

_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED of a whole process


class Sight:
    """Looks at the processes in ``owners`` (rank -> process); one that has ended is asleep."""

    def __init__(self) -> None:
        self.owners: dict[int, int] = {}

    def cpu_s(self, rank: int) -> float:
        return self.of(self.owners[rank])

    def asleep(self, rank: int, all_threads: bool) -> bool:
        pid = self.owners[rank]
        if not _sleeps(f"/proc/{pid}/stat"):
            return False
        if not all_threads:
            return True
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            return True
        return all(_sleeps(f"/proc/{pid}/task/{thread}/stat") for thread in threads)

    def of(self, pid: int) -> float:
        """Processor seconds of a process, 0 when it has ended."""
        try:
            return time.clock_gettime((~pid << 3) | _CLOCK_OF_PROCESS)
        except OSError:
            return 0.0


def _sleeps(path: str) -> bool:
    """Neither running nor stopped: one that is stopped will run on where it was."""
    try:
        with open(path, "rb") as file:
            return file.read(256).rsplit(b")", 1)[1][1:2] not in b"RTt"
    except (OSError, IndexError):
        return True
