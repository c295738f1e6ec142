"""What the policy sees, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.fleet import Node
from midstep.model.job import JobSpec, Placement
from midstep.policy.reasons import Reason

DeviceKey = tuple[str, int]  # node, index on it


@dataclass(frozen=True, slots=True)
class Picture:
    """The fleet now. ``used``: device -> the job that has it. ``down``: nodes that are known but not
    connected. ``shared``: device -> the jobs that have parts of it, in thousandths."""

    nodes: tuple[Node, ...]
    used: dict[DeviceKey, str] = field(default_factory=dict[DeviceKey, str])
    down: tuple[Node, ...] = ()
    shared: dict[DeviceKey, dict[str, int]] = field(default_factory=dict[DeviceKey, dict[str, int]])

    @property
    def known(self) -> tuple[Node, ...]:
        """All nodes, by name."""
        return tuple(sorted((*self.nodes, *self.down), key=lambda node: node.name))


@dataclass(frozen=True, slots=True)
class Want:
    """A job that wants devices. ``seen``: the version of its record, which the plan carries back."""

    job_id: str
    spec: JobSpec
    queued_s: float
    seen: int = 0
    homes: tuple[tuple[int, ...], ...] = ()  # ranks by virtual host; empty: never placed before
    node: str | None = None
    region: str | None = None
    near: str | None = None  # the region that its snapshot is in: preferred
    avoid: tuple[str, ...] = ()  # nodes to use only when there is no other way
    never: tuple[str, ...] = ()  # nodes that must not be used
    restores: bool = False  # it has a snapshot
    pinned: Placement | None = None  # frozen in place: these devices or none
    at: Placement | None = None  # it runs here and wants another number of devices: what can stays there
    still: bool = False  # no rank can change its node
    # Of a job that takes a part of a device: it shares this one; (): one that nobody has; None: the fullest.
    beside: tuple[DeviceKey, ...] | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Give a job these devices."""

    job_id: str
    seen: int
    placement: Placement
    in_place: bool = False
    carries: bool = False  # its devices hold state of the ranks


@dataclass(frozen=True, slots=True)
class Wait:
    """A job gets no devices now, and why."""

    job_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Plan:
    """Every want is answered, in the order of the queue."""

    starts: tuple[Start, ...]
    waits: tuple[Wait, ...]
