"""A rank behind all others on its processors: it gets what they leave. It can neither be forgotten so (it
runs as soon as the processors are idle) nor deadlock, which a stopped process could.

That is the kernel's SCHED_IDLE for each of its threads, and, where the kernel schedules by session
(autogroup), the lowest weight for its session. Nothing is done where we may not undo it.
"""

from __future__ import annotations

import contextlib
import os
import resource

from midstep.proxy.attach import tree

_GONE = (OSError, ValueError)
_AUTOGROUP = "/proc/sys/kernel/sched_autogroup_enabled"


def may_lower() -> bool:
    """Whether what is lowered can be raised again."""
    if os.geteuid() == 0:
        return True
    allowed, _ = resource.getrlimit(getattr(resource, "RLIMIT_NICE", 13))
    return allowed >= 20 or allowed == resource.RLIM_INFINITY


def lower(root: int) -> None:
    """Put every thread of a process tree behind all others."""
    _set(root, os.SCHED_OTHER, os.SCHED_IDLE)
    _weigh(root, 19)


def restore(root: int) -> None:
    """The inverse of ``lower``."""
    _weigh(root, 0)
    _set(root, os.SCHED_IDLE, os.SCHED_OTHER)


def _set(root: int, before: int, after: int) -> None:
    for _ in range(2):  # once more for those that were born meanwhile
        for pid in tree(root):
            with contextlib.suppress(*_GONE):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    _set_one(int(thread), before, after)


def _set_one(thread: int, before: int, after: int) -> None:
    with contextlib.suppress(*_GONE):
        if os.sched_getscheduler(thread) == before:
            os.sched_setscheduler(thread, after, os.sched_param(0))


def _weigh(root: int, nice: int) -> None:
    with contextlib.suppress(*_GONE):
        if os.getsid(root) == os.getsid(0):
            return  # it shares its session with others, us perhaps
        with open(_AUTOGROUP) as file:
            if file.read().strip() != "1":
                return
        with open(f"/proc/{root}/autogroup", "w") as file:
            file.write(str(nice))
