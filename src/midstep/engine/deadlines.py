"""How long each stage may take, in seconds, before the engine rolls it back. One place for all of them.

The agents bound every single step themselves and report a failure; these bounds are for agents that do not
answer. They are larger than the sum of an agent's own for a job of ordinary size.
"""

from __future__ import annotations

from midstep.model.lifecycle import Stage

LIMITS_S: dict[Stage, float] = {
    Stage.HOLDING: 300.0,
    Stage.JOINING: 120.0,
    Stage.DUMPING: 300.0,
    Stage.COMMITTING: 120.0,
    Stage.RELEASING: 120.0,
    Stage.ENDING: 180.0,
}
# How often the same thing is tried again (a start elsewhere, a dump after a transient fault, new proxies in a
# row).
ATTEMPTS = 3
# An ended job does not wait longer than this for nodes that are known not to be connected.
UNREACHABLE_S = 20.0
# Running for so long means that what was tried before has worked.
SETTLED_S = 60.0


def deadline_at_s(stage: Stage, now_s: float) -> float | None:
    """When a stage entered now is overdue; None: it may last."""
    limit_s = LIMITS_S.get(stage)
    return None if limit_s is None else now_s + limit_s
