"""What the HTTP interface says of the scheduler. Times are wall-clock seconds.

| method and path | body -> answer |
| --- | --- |
| GET /v1/queue | -> list[QueueView], in the order in which they will be served |
| GET /v1/jobs/{job}/why | -> WhyView |
| GET /v1/quotas | -> list[QuotaView], projects before their sub-projects |
| PUT /v1/quotas/{project} | QuotaRequest -> QuotaView; DELETE forgets it. ``/`` of a project as it is |
| POST /v1/nodes/{node}/cordon, /uncordon | -> NodeView |
| POST /v1/nodes/{node}/drain | DrainRequest -> DrainView (202); GET: how far it is |
| POST /v1/plan | PlanRequest -> PlanView: nothing is done (wire/plan.py) |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.tiers import Priority, Tier


@dataclass(frozen=True, slots=True)
class FractionView:
    """Device time received / asked for, in device-seconds, of the time for which the job is owed: not that
    of its user's own suspensions. ``hour``: over a sliding hour, ``life``: since submission; None: it has not
    been owed anything yet. ``short_s``: device-seconds that it lacks to its guarantee over the hour.
    """

    hour: float | None = None
    life: float | None = None
    received_s: float = 0.0  # over its life, so is the next
    asked_s: float = 0.0
    guarantee: float = 0.0
    short_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DecisionView:
    """What was decided about a job, by whom, and why. ``reason`` is stable, for scripts; ``facts`` are its
    figures; ``message`` is for people. It held until the next one."""

    at_s: float
    action: str  # wait, start, resize, suspend, migrate, refuse
    reason: str
    message: str
    facts: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class WhyView:
    """All decisions about a job, oldest first, and what would have to change for it to run (or to have all
    of its devices); the latter is looked for in the fleet as it is now."""

    job_id: str
    name: str
    state: str
    devices_now: int | float
    devices_wanted: int | float
    decisions: tuple[DecisionView, ...]
    would_run_if: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueView:
    """A job that waits for devices."""

    place: int  # 1: the next one
    job_id: str
    name: str
    tier: Tier
    priority: Priority
    project: str
    devices: int | float
    min_devices: int | float
    since_s: float
    reason: str  # typed, as in DecisionView
    message: str
    received: FractionView = field(default_factory=FractionView)


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """What a project may count on. ``weight``: its share of what nobody is due, beside its siblings."""

    devices: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class QuotaView:
    """A project, its own quota (None: none was set), and what its jobs have and wait for, sub-projects
    included. ``fair``: its fair share now, by its weight; None: it wants nothing, or there are no quotas."""

    project: str
    devices: int | None
    weight: float
    used: int | float
    waiting: int | float  # devices that its queued jobs ask for
    borrowed: int | float = 0  # used beyond the quota, while nobody else has need of it
    fair: float | None = None


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """``deadline_s``: seconds from now, after which jobs that could not be moved are suspended; None: it
    waits for as long as it takes."""

    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class LeavingView:
    """A job on a node that is being drained. ``state``: moving, waiting, stuck; ``reason`` says why it is
    not gone."""

    job_id: str
    name: str
    state: str
    reason: str
    to: str = ""


@dataclass(frozen=True, slots=True)
class DrainView:
    """``done``: nothing is left on the node, which stays cordoned. ``moved``: the jobs that have left."""

    node: str
    since_s: float
    deadline_s: float | None  # wall clock
    done: bool
    moved: tuple[str, ...] = ()
    left: tuple[LeavingView, ...] = ()
