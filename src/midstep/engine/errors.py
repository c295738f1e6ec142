"""Errors of the engine.

EngineError
|-- Refused        what was asked cannot be done with the job as it is; nothing changed (a user's error: say
it to them)
|   `-- Stale      a plan was made from a picture that is no longer true (the planner plans again)
`-- IllegalMove    a move that the table does not permit: our own mistake; carries the job's story
"""

from __future__ import annotations


class EngineError(Exception):
    """An event was not taken."""


class Refused(EngineError):
    """The job's state does not allow what was asked. ``code`` is stable, for scripts; ``state`` is the
    job's."""

    def __init__(self, code: str, message: str, state: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.state, self.hint = code, message, state, hint


class Stale(Refused):
    """A plan's picture of the job or of a device is no longer true."""


class IllegalMove(EngineError):
    """A stage has no edge for a trigger. ``story``: the job's last moves, oldest first."""

    def __init__(self, job_id: str, stage: str, trigger: str, story: tuple[str, ...]) -> None:
        lines = "\n  ".join(story) or "(nothing happened before)"
        super().__init__(f"job {job_id}: {trigger} is not permitted while {stage}; its story:\n  {lines}")
        self.story = story
