"""Shortest job first: knows every duration; strict head-of-line blocking, no preemption (SC'21, as FIFO)."""

from __future__ import annotations

from midstep.sim.policy import Placer
from midstep.sim.rivals.fifo import StrictQueue


def sjf(placer: Placer) -> StrictQueue:
    """By duration."""
    return StrictQueue("sjf", placer, lambda job: job.duration_s)
