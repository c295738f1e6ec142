"""`POST /v1/plan`: what would happen. Nothing is done."""

from __future__ import annotations

from dataclasses import dataclass

from midstep.wire.api import JobRequest


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One of them: a job that would be submitted (its ``workdir_blob`` is not looked at), or a node that
    would be drained."""

    submit: JobRequest | None = None
    drain: str | None = None


@dataclass(frozen=True, slots=True)
class StepView:
    """One thing that would be done. ``action`` as in DecisionView."""

    job_id: str
    name: str
    action: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """``fits``: it would be so, at once or after the other steps. ``summary``: in a sentence. ``tier``: of a
    submission, what the job would be admitted as ('': it would be refused)."""

    fits: bool
    summary: str
    steps: tuple[StepView, ...] = ()
    tier: str = ""
