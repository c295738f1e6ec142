"""What the controller wants of a job on a node, and what the node's agent answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Goal(enum.StrEnum):
    """The desired state of one job on one node, under one epoch."""

    # A proxy listens. From a snapshot: processes restored, stopped. Processes that are here: adopted.
    HOLD = "hold"
    RUN = "run"  # peers known: proxy connected, processes started or thawed
    DUMP = "dump"  # frozen, drained, this node's part in the vault; processes still here, stopped
    GONE = "gone"  # no process, no files; before that, with `collect`, the homes are saved as results


class Phase(enum.StrEnum):
    """What a node has reached."""

    HOLDING = "holding"  # under way to HELD
    HELD = "held"
    STARTING = "starting"  # under way to RUNNING
    RUNNING = "running"
    DUMPING = "dumping"  # under way to DUMPED
    DUMPED = "dumped"
    ENDING = "ending"  # under way to GONE
    GONE = "gone"
    FAILED = "failed"  # the goal cannot be reached; `Failure` says why; what ran before runs on when `intact`
    PROXY_LOST = "proxy_lost"  # ranks are there, their proxy is not: a new epoch is needed


class Fault(enum.StrEnum):
    """Whose fault, and so whether to try again."""

    USER = "user"  # the command, the script: the job fails
    JOB_STATE = (
        "job_state"  # this job cannot be dumped as it stands now (a device, a socket): it goes on running
    )
    NODE = "node"  # this node: try elsewhere
    TRANSIENT = "transient"  # try again
    SNAPSHOT = "snapshot"  # the snapshot cannot be used, on any node: an older one may

    @property
    def passes(self) -> bool:
        """The same may go well the next time, or elsewhere."""
        return self in (Fault.NODE, Fault.TRANSIENT)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a goal was not reached, in words for a user."""

    step: str  # freeze, drain, dump, store, copy, restore, reconnect, thaw, launch, fetch
    message: str
    fault: Fault
    intact: bool = True  # the processes are as they were before the step (rolled back)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class StepTiming:
    """One bounded phase of a suspend, resume or migration on one node."""

    step: str
    duration_s: float
    nbytes: int = 0
    known_bytes: int = 0  # of a transfer between regions: what was there already


@dataclass(frozen=True, slots=True)
class Doing:
    """How far a step that takes long is. Bytes."""

    step: str
    done_bytes: int = 0
    left_bytes: int = 0


class CopyState(enum.StrEnum):
    """Of a snapshot that a node brings into its region while its job runs elsewhere."""

    COPYING = "copying"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """How far it is. ``done_bytes``: that have travelled; ``left_bytes``: of what is still missing, before
    compression; ``known_bytes``: of what was there already."""

    job_id: str
    snapshot_id: str
    state: CopyState = CopyState.COPYING
    done_bytes: int = 0
    left_bytes: int = 0
    known_bytes: int = 0
    duration_s: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class RankStatus:
    """One rank on a node. ``exit_code``: None while it runs; 128+n for signal n."""

    rank: int
    exit_code: int | None = None
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stall:
    """A collective that some ranks posted and others did not, for longer than the stall bound."""

    group: str
    operation: str
    waiting_s: float
    posted: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobOnNode:
    """An agent's report on one job under one epoch."""

    job_id: str
    epoch: int
    phase: Phase
    proxy_port: int = 0
    ranks: tuple[RankStatus, ...] = ()
    failure: Failure | None = None
    steps: tuple[StepTiming, ...] = ()
    stalls: tuple[Stall, ...] = ()
    store: dict[str, str] = field(default_factory=dict[str, str])  # DUMPED, leader only: key -> base64 value
    nbytes: int = 0  # DUMPED: this node's part
    target: str | None = None  # DUMPED: the snapshot that it is a part of
    doing: Doing | None = None  # under way, and it may last
    stored: str | None = None  # the checkpoint whose part, made before, is in the vault by now
    not_stored: str = ""  # why a part that was made cannot be brought there
