"""What moves have cost in this fleet, for the policy to count with. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median

from midstep.engine.record import JobRecord, Move
from midstep.policy.asks import Costs

_NEWEST = 200  # moves of a kind
_DUMPS = "dump"  # a step that a resize has only where ranks change their node


def measured_costs(records: Iterable[JobRecord], stated: Costs | None = None) -> Costs:
    """The medians of what went well; what has never been done costs what is stated. Seconds."""
    moves = [move for record in records for move in record.moves if move.ok and move.ended_s is not None]
    moves.sort(key=lambda move: move.started_s)
    kinds = {
        "suspend_s": [move for move in moves if move.kind == "suspend"],
        "resume_s": [move for move in moves if move.kind == "resume"],
        "resize_within_s": [move for move in moves if move.kind == "resize" and not _cut(move)],
        "resize_across_s": [move for move in moves if move.kind in ("resize", "migrate") and _cut(move)],
    }
    known = {name: _median_s(found[-_NEWEST:]) for name, found in kinds.items() if found}
    return replace(stated or Costs(), **known)


def _cut(move: Move) -> bool:
    return any(step.timing.step == _DUMPS for step in move.steps)


def _median_s(moves: list[Move]) -> float:
    return median((move.ended_s or move.started_s) - move.started_s for move in moves)
