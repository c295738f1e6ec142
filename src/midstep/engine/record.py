"""Everything that the controller knows of a job."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from midstep.engine.facets import Ahead, NodeStep, Parting, Saves, Storing
from midstep.model.job import JobSpec, NodePlace, Placement, SnapshotRef
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import Failure, JobOnNode, Phase, Stall


class Intent(enum.StrEnum):
    """What the user wants of the job now."""

    RUN = "run"
    SUSPEND = "suspend"
    MIGRATE = "migrate"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Target:
    """A user's word on where the job shall be: a node, or a region."""

    node: str | None = None
    region: str | None = None

    def met(self, placement: Placement) -> bool:
        """Whether a job with this placement is there."""
        if self.node is not None:
            return {place.node for place in placement.nodes} == {self.node}
        return placement.region == self.region

    def __str__(self) -> str:
        return f"node {self.node}" if self.node else f"region {self.region}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Where one of the job's proxies listens, as far as the engine knows."""

    index: int
    node: str
    port: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something of the job may still be on a node that does not answer; it is removed when it does."""

    place: NodePlace
    epoch: int


@dataclass(frozen=True, slots=True)
class Move:
    """A suspend, resume, migration, resize or reconnection. ``ok`` None: under way."""

    kind: str
    started_s: float
    ended_s: float | None = None
    nbytes: int = 0
    steps: tuple[NodeStep, ...] = ()
    ok: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """The rank that ended the job."""

    rank: int
    code: int
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job. Changed only by `step`; ``version`` grows with every change."""

    job_id: str
    spec: JobSpec
    submitted_s: float
    queued_s: float  # since when it has been waiting for devices
    stage: Stage = Stage.WAITING
    intent: Intent = Intent.RUN
    version: int = 0
    epoch: int = 0
    placement: Placement | None = None  # where it is
    next: Placement | None = None  # reserved: where a migration or a resize goes
    back: Placement | None = None  # reserved while migrating or resizing: where it was
    left: Placement | None = None  # where it was last, for late log lines
    homes: tuple[tuple[int, ...], ...] = ()  # ranks by virtual host, fixed at the first placement
    target: Target | None = None
    ahead: Ahead | None = None  # copy-ahead of the migration that was asked for
    parting: Parting | None = None  # to another region's controller
    hops: int = 0  # times that it was handed over from one controller to another
    asked: int | None = None  # devices, by its user's last resize; None: the scheduler may choose
    given: int | None = None  # devices, as the scheduler chose; None: as submitted
    yields: bool = False  # the scheduler wants its devices: it is cut, and waits for others
    avoid: tuple[str, ...] = ()  # nodes that could not start it
    carries: bool = False  # its devices hold state of the ranks (GPUs), which only a cut moves
    in_place: bool = False  # its nodes cannot dump: suspending only stops it
    ran: bool = False  # processes may have run since the last cut: they must not run twice
    source: SnapshotRef | None = None  # HOLDING: restored from it
    snapshot: SnapshotRef | None = None  # the newest
    older: SnapshotRef | None = None  # the one before it, in case the newest is damaged
    damaged: tuple[str, ...] = ()  # snapshots that could not be used; they go when the job ends
    keeps: bool = False  # the cut under way is a checkpoint: its processes go on
    storing: Storing | None = None  # JOINING, RUNNING: the checkpoint just made
    saves: Saves = field(default_factory=Saves)
    pending: str | None = None  # the snapshot being made
    partly: bool = False  # a resize is under way for which only the ranks that change nodes are dumped
    part: SnapshotRef | None = None  # their snapshot, until all run: of no use without the ranks that stayed
    store: dict[str, str] = field(default_factory=dict[str, str])  # of `snapshot`
    older_store: dict[str, str] = field(default_factory=dict[str, str])  # of `older`
    cut_store: dict[str, str] = field(default_factory=dict[str, str])  # of `pending` or `part`
    reports: dict[str, JobOnNode] = field(default_factory=dict[str, JobOnNode])  # of this epoch
    peers: tuple[Peer, ...] = ()
    lost: dict[str, float] = field(default_factory=dict[str, float])  # nodes that do not answer, since when
    given_up: tuple[str, ...] = ()  # of those: for so long that nothing runs there any more
    leftovers: dict[str, Leftover] = field(default_factory=dict[str, Leftover])
    deadline_s: float | None = None
    attempts: int = 0
    retried: int = 0  # times that it was run again after it had ended badly by itself
    losses: int = 0  # times that its processes were lost through no fault of its own
    exposed_s: float = 0.0  # node-seconds that it has been running: what its losses are measured by
    stage_s: float = 0.0  # since when it is in its stage
    move: Move | None = None
    moves: tuple[Move, ...] = ()
    outcome: JobState | None = None
    failure: Failure | None = None
    exit: Exit | None = None
    exits: dict[int, int] = field(
        default_factory=dict[int, int]
    )  # of an ended job: the ranks that had ended by themselves
    waiting: str = ""  # why it has no devices
    started_s: float | None = None
    running_s: float | None = None  # since when it has been running, this time
    ended_s: float | None = None
    recent: tuple[NodeStep, ...] = ()  # steps seen, so that a report that repeats them adds nothing
    story: tuple[str, ...] = ()

    @property
    def stays_put(self) -> bool:
        """Whether nothing is under way that takes it from its devices (a checkpoint does not)."""
        return self.stage in (Stage.HOLDING, Stage.JOINING, Stage.RUNNING) or self.keeps

    @property
    def shown(self) -> JobState:
        """The state in a user's words."""
        if self.away or (self.parts and self.stage is not Stage.OVER):
            return JobState.MIGRATING
        return _SHOWN[self.stage] if self.stage in _SHOWN else _shown_by_history(self)

    @property
    def parts(self) -> bool:
        """It stands still, or shall, to go to another region's controller."""
        return self.parting is not None and not self.parting.copies

    @property
    def away(self) -> str:
        """The region whose controller has it now; '': this one."""
        return self.parting.region if self.parting is not None and self.parting.handed else ""

    @property
    def waits(self) -> bool:
        """It stands still for want of devices."""
        return self.stage in (Stage.WAITING, Stage.FROZEN) and self.intent is Intent.RUN

    @property
    def would_move(self) -> bool:
        """It shall migrate, and neither has devices reserved where it goes nor is on its way already."""
        there = self.stage in (Stage.HOLDING, Stage.JOINING, Stage.RUNNING)
        return there and self.intent is Intent.MIGRATE and self.next is None and self.back is None

    @property
    def wanted(self) -> int:
        """How many devices it shall have."""
        given = self.spec.devices if self.given is None else self.given
        return given if self.asked is None else self.asked

    @property
    def devices(self) -> int:
        """How many devices it has now."""
        return self.placement.devices if self.placement else 0

    @property
    def would_resize(self) -> bool:
        """It runs on more or fewer devices than it shall have, and nothing else is under way."""
        return self.settled and self.devices != self.wanted

    @property
    def settled(self) -> bool:
        """It runs, and nothing is under way with it: the scheduler may do something."""
        idle = self.stage is Stage.RUNNING and self.intent is Intent.RUN and self.next is None
        return idle and not self.unreachable and not self.yields

    @property
    def parked(self) -> tuple[NodePlace, ...]:
        """Nodes that all ranks leave in a resize: the processes stand there, in case they have to go on."""
        if self.part is None or self.back is None:
            return ()
        here = {place.node for place in self.nodes}
        return tuple(place for place in self.back.nodes if place.node not in here)

    @property
    def nodes(self) -> tuple[NodePlace, ...]:
        """The nodes that it is on."""
        return self.placement.nodes if self.placement else ()

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Nodes that it is on and that do not answer."""
        return tuple(place.node for place in self.nodes if place.node in self.lost)

    @property
    def snapshot_bytes(self) -> int:
        """Of the newest snapshot; 0: there is none."""
        return self.snapshot.nbytes if self.snapshot else 0

    def dumped(self, node: str) -> bool:
        """Whether a node's part of the snapshot being made is in the vault."""
        report = self.reports.get(node)
        return report is not None and report.phase is Phase.DUMPED and report.target in (None, self.pending)

    @property
    def stalls(self) -> tuple[Stall, ...]:
        """Collectives that wait for ranks that do not come."""
        if self.stage is not Stage.RUNNING:
            return ()
        return tuple(stall for _, report in sorted(self.reports.items()) for stall in report.stalls)


_SHOWN = {
    Stage.RUNNING: JobState.RUNNING,
    Stage.ENDING: JobState.ENDING,
}


def _shown_by_history(record: JobRecord) -> JobState:
    moving = {"migrate": JobState.MIGRATING, "resize": JobState.RESIZING}
    on_its_way = moving.get(record.move.kind) if record.move is not None else None
    saving = record.move is not None and record.move.kind == "checkpoint"
    match record.stage:
        case Stage.OVER:
            return record.outcome or JobState.FAILED
        case Stage.DUMPING | Stage.COMMITTING | Stage.JOINING if saving:
            return JobState.RUNNING
        case Stage.WAITING | Stage.FROZEN:
            waits = on_its_way or JobState.QUEUED
            return JobState.SUSPENDED if record.intent is Intent.SUSPEND else waits
        case _ if on_its_way is not None:
            return on_its_way
        case Stage.HOLDING | Stage.JOINING | Stage.RELEASING if (
            record.move is not None and record.move.kind != "suspend"
        ):
            return JobState.RESUMING if record.move.kind == "resume" else JobState.RECONNECTING
        case Stage.HOLDING | Stage.JOINING:
            return JobState.STARTING
        case Stage.RELEASING if record.move is None and record.started_s is None:
            return JobState.STARTING
        case Stage.RELEASING if record.move is None and record.intent is Intent.RUN:
            return JobState.RECONNECTING  # its processes were lost: what is left is removed, then again
        case _:
            return JobState.SUSPENDING
