"""What can happen to a job. The only door into the engine is `step(record, event, now_s)`."""

from __future__ import annotations

from dataclasses import dataclass

from midstep.engine.passport import Passport
from midstep.model.job import JobSpec, Placement, SnapshotRef
from midstep.model.phase import CopyStatus, Fault, JobOnNode


@dataclass(frozen=True, slots=True)
class Origin:
    """Another job's snapshot, which a new one starts from; what the rendezvous store held at that cut; ranks
    by virtual host; the other job's epoch: the ranks' mailboxes obey only proxies of later ones."""

    snapshot: SnapshotRef
    store: dict[str, str]
    homes: tuple[tuple[int, ...], ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A new job; the only event that needs no record. ``origin`` None: it starts from the beginning."""

    job_id: str
    spec: JobSpec
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """The policy found devices. ``seen``: the record's version that the plan was made from."""

    placement: Placement
    seen: int
    in_place: bool = False  # some of the nodes cannot dump
    carries: bool = False  # its devices hold state of the ranks
    why: str = ""  # it runs, and the scheduler moves it or gives it another number; '': it asked for them


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """Why the policy found no devices, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Preempted:
    """The scheduler needs its devices for others: it is suspended, and waits for its turn. ``seen``: the
    record's version that this was decided from."""

    seen: int
    why: str


@dataclass(frozen=True, slots=True)
class Freed:
    """Its user leaves the number of its devices to the scheduler again."""


@dataclass(frozen=True, slots=True)
class NodeReported:
    """An agent's report on the job."""

    node: str
    report: JobOnNode


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node's agent is not connected any more."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeBack:
    """A node's agent is connected again."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node has not answered for so long that its agent has fenced itself: nothing runs there any more."""

    node: str


@dataclass(frozen=True, slots=True)
class SnapshotCopied:
    """A node's word on the snapshot that it brings into its region."""

    node: str
    status: CopyStatus


@dataclass(frozen=True, slots=True)
class CheckpointAsked:
    """Save the running job, and let it go on. ``due``: nobody asked, its interval is over."""

    due: bool = False


@dataclass(frozen=True, slots=True)
class SuspendAsked:
    """Free the job's devices, keep its state."""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Go on from where it was."""


@dataclass(frozen=True, slots=True)
class MigrateAsked:
    """Go on elsewhere: one of ``node`` and ``region`` is set."""

    node: str | None = None
    region: str | None = None
    ahead: bool = False  # to another region: copy as much as possible while it runs

    @property
    def to(self) -> str:
        """The place's name."""
        return self.node or self.region or ""


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """Go on under another region's controller. ``ahead``: copy as much as possible while it runs; ``why``:
    the scheduler's reason; '': its user asked. A running job that is copied ahead, or that its user sends,
    runs on until devices are free there."""

    region: str
    ahead: bool = False
    why: str = ""
    node: str | None = None
    devices: int | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """Devices are free there, and all that is worth it was copied ahead: the job may stand still now.
    ``message``: why no more was."""

    rounds: int = 0
    nbytes: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The job stands still, and its passport is about to be given to the other controller: from now on only
    that one, or its refusal, decides about it."""


@dataclass(frozen=True, slots=True)
class TurnedBack:
    """The other controller will never take the passport with so many ``hops``."""

    why: str
    hops: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Another controller handed a job over. Needs no record; one that was handed over before is replaced."""

    passport: Passport


@dataclass(frozen=True, slots=True)
class NotNeeded:
    """Nobody reads any more of what is left here of a job that was handed over for the ``hops``-th time."""

    hops: int


@dataclass(frozen=True, slots=True)
class ResizeAsked:
    """Go on with this many devices; elsewhere, if one of ``node`` and ``region`` is set."""

    devices: int
    node: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Stop the job for good."""


@dataclass(frozen=True, slots=True)
class SnapshotCommitted:
    """A manifest was written: the snapshot is safe."""

    snapshot: SnapshotRef
    duration_s: float


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """A snapshot could not be committed."""

    snapshot_id: str
    message: str
    fault: Fault = Fault.TRANSIENT


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The record's deadline is over. Ignored when it is not."""


@dataclass(frozen=True, slots=True)
class ControllerRestarted:
    """The controller came up with this record: effects under way were lost, no agent is connected yet."""


Event = (
    Submitted
    | Placed
    | NotPlaced
    | Preempted
    | Freed
    | NodeReported
    | NodeLost
    | NodeBack
    | NodeGone
    | SnapshotCopied
    | CheckpointAsked
    | SuspendAsked
    | ResumeAsked
    | MigrateAsked
    | ResizeAsked
    | LeaveAsked
    | Copied
    | HandedOver
    | TurnedBack
    | Arrived
    | NotNeeded
    | CancelAsked
    | SnapshotCommitted
    | SnapshotFailed
    | DeadlinePassed
    | ControllerRestarted
)
