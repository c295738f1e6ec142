"""The seam between the simulator and a policy.

A policy is told what happened (`News`) and orders what shall be done now (`Orders`). It may keep any state
of its own, brought up to date from the news: nothing is handed over whole, so a pure policy with an
incremental picture fits as it is; the service's own is wrapped in the same way. It has no clock and no
chance but a seeded one that it was made with; the core alone decides whether what it orders is possible.

    class Mine:
        name = "mine"
        end_lag_s = 0
        def decide(self, news: News) -> Orders: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from midstep.sim.record import Record
from midstep.sim.trace import MILLI, Job


@dataclass(frozen=True, slots=True)
class Grant:
    """Devices for a job: so many of each node, by the fleet's numbering; ``milli`` of each device. ``which``:
    their indices on the (only) node, where parts of devices are given."""

    nodes: tuple[int, ...]
    counts: tuple[int, ...]
    milli: int = MILLI
    which: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        """How many, whole or in part."""
        return sum(self.counts)


@dataclass(slots=True)
class News:
    """What happened at one moment, in this order: jobs ended (the devices that they had are free now), jobs
    arrived. ``records``: of all jobs, by index; to be read only."""

    now_s: int
    ended: list[tuple[Job, Grant]]
    arrived: list[Job]
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Start:
    """Run a waiting job. ``overhead_s``: at the beginning it holds its devices and makes no progress.
    ``rate``: progress per second, 1 is that of the trace."""

    job: Job
    grant: Grant
    overhead_s: int = 0
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Take a running job's devices away. ``lost_s``: seconds of its work that are to be done again (negative
    progress), or that saving it costs."""

    job: Job
    lost_s: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Give a running job other devices, or another number of them, with no wait in between."""

    job: Job
    grant: Grant
    overhead_s: int = 0
    rate: float = 1.0


@dataclass(slots=True)
class Orders:
    """Carried out in this order. ``wake_s``: decide again then at the latest."""

    actions: list[Start | Stop | Move] = field(default_factory=list[Start | Stop | Move])
    wake_s: int | None = None


class SimPolicy(Protocol):
    """``end_lag_s``: how long after its last second of work a job gives its devices back (0; some published
    settings have 1)."""

    name: str
    end_lag_s: int

    def decide(self, news: News) -> Orders:
        """Called whenever something happened; several times in one second if jobs without duration end."""
        ...


class Placer(Protocol):
    """Which devices a job gets. Keeps count of those that it gave."""

    def place(self, job: Job) -> Grant | None:
        """Take devices for a job; None: it does not fit now, and nothing is taken."""
        ...

    def give_back(self, job: Job, grant: Grant) -> None:
        """They are free again."""
        ...

    def possible(self, job: Job) -> str:
        """ "" if it would fit were everything free; else why not, with what the largest possible is."""
        ...

    @property
    def total(self) -> int:
        """Devices, free or not."""
        ...

    @property
    def free(self) -> int:
        """Devices that are wholly free."""
        ...

    def copy(self) -> Placer:
        """For trying things out."""
        ...
