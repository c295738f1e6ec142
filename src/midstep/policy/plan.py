"""What the scheduler answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.tiers import Tier
from midstep.policy.asks import Grant
from midstep.policy.causes import Cause, Shortage, Waiting


@dataclass(frozen=True, slots=True)
class Start:
    """Run a waiting job. ``again``: it has run before, so it is restored. ``sharing``: ranks a device;
    ``rate``: progress that is expected, 1 on all the devices that it asked for."""

    job_id: str
    grant: Grant
    sharing: int
    rate: float
    cause: Cause
    again: bool = False


@dataclass(frozen=True, slots=True)
class Resize:
    """Give a running job other devices: more, fewer, or elsewhere. ``across``: ranks change their node."""

    job_id: str
    grant: Grant
    sharing: int
    rate: float
    cause: Cause
    across: bool = False


@dataclass(frozen=True, slots=True)
class Suspend:
    """Take a running job's devices; it waits again."""

    job_id: str
    cause: Cause


Action = Start | Resize | Suspend


@dataclass(frozen=True, slots=True)
class Admission:
    """``tier``: what it was admitted as, None: it was not. ``why``: where that is less than it asked for."""

    job_id: str
    tier: Tier | None
    why: Shortage | None = None


@dataclass(slots=True)
class Plan:
    """``actions`` in an order in which no device is had twice. ``waits``: of jobs that wait, the reasons
    that are new or have changed. ``wake_s``: decide again then at the latest; None: only events change
    anything."""

    actions: list[Action] = field(default_factory=list[Action])
    waits: dict[str, Waiting] = field(default_factory=dict[str, Waiting])
    wake_s: float | None = None
