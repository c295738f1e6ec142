"""Messages between the controller and an agent: desired state down, reports up, over one WebSocket that the
agent dials.

Level-triggered: `Desired` is everything that the controller wants of the node, every time; `Report` is
everything that the node has, every time. Losing any of them costs only time. Bytes travel as base64 inside
JSON. Every message names `PROTOCOL`; an agent of another major version is refused at `Hello`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from midstep.model.fleet import Node
from midstep.model.job import JobSpec, NodePlace, SnapshotRef
from midstep.model.phase import CopyStatus, Goal, JobOnNode
from midstep.model.usage import NodeUsage

PROTOCOL = 1
USAGE_VERSION = 1  # of NodeUsage, which may change more often


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a job's proxy listens, and which ranks it serves."""

    index: int
    host: str
    port: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one node shall do for one job, under one epoch (larger epochs fence smaller ones)."""

    job_id: str
    epoch: int
    goal: Goal
    spec: JobSpec
    place: NodePlace
    peers: tuple[PeerAddress, ...] = ()  # RUN: all the job's nodes, this one included
    source: SnapshotRef | None = None  # HOLD: restore from it; None: start anew (or adopt what is here)
    adopt: bool = False  # HOLD: never start anew: the job's other ranks are in the middle of their work
    target: str | None = None  # DUMP: the snapshot's id; RUN: of the one whose part is to be stored meanwhile
    keep: bool = False  # DUMP: the processes will go on, so the part may be made in memory
    store: dict[str, str] = field(default_factory=dict[str, str])  # HOLD on the leader: key -> base64 value
    leaving: tuple[int, ...] | None = None  # DUMP: these homes only, the others stay here; None: all
    collect: bool = False  # GONE: save the homes as results first
    log_bytes: dict[int, int] = field(
        default_factory=dict[int, int]
    )  # rank -> bytes of its log the controller has


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """Bring a snapshot of another region into this node's. Its job runs elsewhere, and may come here."""

    job_id: str
    source: SnapshotRef


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of an agent. ``token`` is the fleet's secret."""

    node: Node
    token: str
    protocol: int = PROTOCOL
    type: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a node has. Sent when something changed, and every few seconds as a heartbeat."""

    jobs: tuple[JobOnNode, ...]
    copies: tuple[CopyStatus, ...] = ()
    type: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one rank's log from ``offset``. An offset below what the controller has means: rewound to the
    cut.
    """

    job_id: str
    rank: int
    offset: int
    data: str  # base64
    type: Literal["log"] = "log"


@dataclass(frozen=True, slots=True)
class Measured:
    """What jobs do with this node's devices. Sent every `Welcome.measure_s`, and when a job stands still or
    ends. A controller leaves those of another ``version`` alone."""

    jobs: tuple[NodeUsage, ...]
    version: int = USAGE_VERSION
    type: Literal["measured"] = "measured"


@dataclass(frozen=True, slots=True)
class Welcome:
    """The controller's answer to `Hello`."""

    controller: str
    heartbeat_s: float = 2.0
    stall_s: float = 30.0
    fence_s: float | None = None  # who has not heard of the controller for so long lets nothing run
    measure_s: float = 0.0  # how often `Measured` is wanted; 0: never
    type: Literal["welcome"] = "welcome"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the controller does not take this agent; the agent stops."""

    message: str
    type: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything the controller wants of this node. A job of the node's that is not named: leave it as it is,
    report it.
    """

    assignments: tuple[Assignment, ...]
    copies: tuple[CopyOrder, ...] = ()  # these, and no others
    type: Literal["desired"] = "desired"


FromAgent = Annotated[Hello | Report | LogChunk | Measured, Field(discriminator="type")]
ToAgent = Annotated[Welcome | Refused | Desired, Field(discriminator="type")]
FROM_AGENT: TypeAdapter[Hello | Report | LogChunk | Measured] = TypeAdapter(FromAgent)
TO_AGENT: TypeAdapter[Welcome | Refused | Desired] = TypeAdapter(ToAgent)
