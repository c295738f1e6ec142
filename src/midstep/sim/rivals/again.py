"""What a job pays, under any rival, to come up again after its node failed."""

from __future__ import annotations

from midstep.sim.record import Record

RESTART_S = 60


def overhead_s(record: Record) -> int:
    """Of its next start."""
    return RESTART_S if record.broken else 0
