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
    """What happened at one moment, in this order: jobs ended (the devices that they had are free now), nodes
    came ``back``, nodes failed (``lost``; both by the fleet's numbering), which ``cut`` jobs off: they wait
    again, and all devices that they had are free, but for those of lost nodes; jobs arrived. A node's devices
    and come as a whole: a lost one gives nothing until it is back. Spot nodes that will be lost soon are
    ``noticed``; who is told of that shall empty them now. ``records``: of all jobs, by index; to be read
    only."""

    now_s: int
    ended: list[tuple[Job, Grant]]
    arrived: list[Job]
    records: Sequence[Record]
    back: list[int] = field(default_factory=list[int])
    lost: list[int] = field(default_factory=list[int])
    cut: list[tuple[Job, Grant]] = field(default_factory=list[tuple[Job, Grant]])
    noticed: list[int] = field(default_factory=list[int])


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


@dataclass(frozen=True, slots=True)
class Decline:
    """A waiting job is not admitted. ``for_good``: it is turned away, and never runs; else it is only told
    that it has no guarantee, and may run on what is left, as best effort does. ``why``: for its user."""

    job: Job
    why: str
    for_good: bool = False


Action = Start | Stop | Move | Decline


@dataclass(slots=True)
class Orders:
    """Carried out in this order. ``wake_s``: decide again then at the latest."""

    actions: list[Action] = field(default_factory=list[Action])
    wake_s: int | None = None


def settle(placer: Placer, news: News) -> None:
    """Bring a placement up to date: what ended and what was cut off gives back, lost nodes are gone."""
    for job, grant in news.ended:
        placer.give_back(job, grant)
    for job, grant in news.cut:
        placer.give_back(job, grant)
    for node in news.back:
        placer.regain(node)
    for node in news.lost:
        placer.lose(node)


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

    def take(self, job: Job, grant: Grant) -> Grant:
        """Those devices, whoever chose them. They are free. The answer is what is given back later: it says
        which devices they are, where that matters."""
        ...

    def give_back(self, job: Job, grant: Grant) -> None:
        """They are free again."""
        ...

    def fits(self, job: Job) -> bool:
        """`place` would answer, now."""
        ...

    def lose(self, node: int) -> None:
        """A node of which nothing is taken gives no more, by the fleet's numbering; others' are ignored."""
        ...

    def regain(self, node: int) -> None:
        """It is there again, and free."""
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
