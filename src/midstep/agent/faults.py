"""Fault points: named instants at which a test can have the agent die by SIGKILL, as a machine dies.

Every step passes two of them, one before its effect and one after it, so that a test can walk through all of
them. Nothing is armed in a real fleet.
"""

from __future__ import annotations

import os
import signal

STEPS = (
    "hold.transfer",
    "hold.fetch",
    "hold.copy",
    "hold.restore",
    "hold.reconnect",
    "run.reconnect",
    "run.launch",
    "run.thaw",
    "dump.freeze",
    "dump.drain",
    "dump.dump",
    "dump.store",
    "end.kill",
    "end.collect",
    "end.remove",
    "gpu.cuda-part",  # by themselves: only jobs that use CUDA pass these
    "gpu.cuda-lock",
    "gpu.cuda-checkpoint",
    "gpu.cuda-restore",
    "gpu.cuda-unlock",
)
POINTS = tuple(f"{step}:{side}" for step in STEPS for side in ("before", "after"))

_armed = ""


def arm(point: str) -> None:
    """Die at ``point``; the empty string disarms."""
    global _armed
    _armed = point


def pass_point(point: str) -> None:
    """Die here if this point is armed. An unknown point is our own mistake."""
    assert point in POINTS, point
    if point == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
