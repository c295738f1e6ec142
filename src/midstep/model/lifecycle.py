"""The life of a job: the words that users see, the stages that the engine goes through, and one table of the
moves."""

from __future__ import annotations

import enum
from typing import NamedTuple


class JobState(enum.StrEnum):
    """What `midstep ps` prints."""

    QUEUED = "queued"  # waits for devices
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"  # holds no devices; waits for the user
    RESUMING = "resuming"
    MIGRATING = "migrating"
    RESIZING = "resizing"  # its ranks are being spread over more or fewer devices
    RECONNECTING = "reconnecting"  # its processes stand where they stood, under new proxies
    ENDING = "ending"  # its files are being saved and its processes removed
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Nothing will happen to the job any more."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Stage(enum.StrEnum):
    """Where a job is on its way; each but the waiting ones has one goal on all of the job's nodes."""

    WAITING = "waiting"  # no process anywhere
    HOLDING = "holding"  # HOLD wanted
    JOINING = "joining"  # RUN wanted, not reached everywhere
    RUNNING = "running"
    DUMPING = "dumping"  # DUMP wanted
    COMMITTING = "committing"  # every node's part is there; the manifest is being written
    RELEASING = "releasing"  # GONE wanted; the job lives on in its snapshot (or starts again from nothing)
    FROZEN = "frozen"  # stands still in place, on nodes that cannot dump
    ENDING = "ending"  # GONE wanted, results saved
    OVER = "over"


class Trigger(enum.StrEnum):
    """What moves a job from one stage to another."""

    PLACED = "placed"
    ALL_HELD = "all_held"
    ALL_RUNNING = "all_running"
    CUT = "cut"
    ALL_DUMPED = "all_dumped"
    PARKED = "parked"
    COMMITTED = "committed"
    ALL_GONE = "all_gone"
    MOVED = "moved"
    RESIZED = "resized"
    KEPT = "kept"
    SWITCHED = "switched"
    TURNED_BACK = "turned_back"
    BROKEN = "broken"
    ROLLED_BACK = "rolled_back"
    ABANDONED = "abandoned"
    ENDED = "ended"


class Edge(NamedTuple):
    """One permitted move."""

    stage: Stage
    trigger: Trigger
    next: Stage
    why: str


_S, _T = Stage, Trigger
TABLE: tuple[Edge, ...] = (
    Edge(
        _S.WAITING,
        _T.PLACED,
        _S.HOLDING,
        "devices were found: proxies listen, files or processes are brought there",
    ),
    Edge(_S.WAITING, _T.ENDED, _S.OVER, "cancelled while nothing of it ran"),
    Edge(_S.HOLDING, _T.ALL_HELD, _S.JOINING, "every node is ready: the nodes learn of each other"),
    Edge(_S.HOLDING, _T.BROKEN, _S.HOLDING, "a proxy was lost before it was used: again, under a new epoch"),
    Edge(
        _S.HOLDING,
        _T.ABANDONED,
        _S.RELEASING,
        "it cannot be started or restored here: what is there is removed",
    ),
    Edge(
        _S.HOLDING,
        _T.TURNED_BACK,
        _S.HOLDING,
        "the ranks that moved cannot be restored there: all go on where they were, under a new epoch",
    ),
    Edge(_S.HOLDING, _T.ENDED, _S.ENDING, "cancelled, or it can never start"),
    Edge(_S.JOINING, _T.ALL_RUNNING, _S.RUNNING, "every rank runs"),
    Edge(_S.JOINING, _T.BROKEN, _S.HOLDING, "a proxy was lost: the processes are adopted under a new epoch"),
    Edge(
        _S.JOINING,
        _T.ABANDONED,
        _S.RELEASING,
        "it does not come up here, or its processes were lost",
    ),
    Edge(_S.JOINING, _T.ENDED, _S.ENDING, "cancelled, or a rank ended badly, or all ended well"),
    Edge(
        _S.RUNNING,
        _T.CUT,
        _S.DUMPING,
        "suspend, migrate, resize or checkpoint: all nodes freeze, drain and dump",
    ),
    Edge(
        _S.RUNNING,
        _T.RESIZED,
        _S.HOLDING,
        "no rank changes its node: the processes are adopted with other devices, under a new epoch",
    ),
    Edge(_S.RUNNING, _T.BROKEN, _S.HOLDING, "a proxy was lost: the processes are adopted under a new epoch"),
    Edge(
        _S.RUNNING,
        _T.ABANDONED,
        _S.RELEASING,
        "its processes were lost: again, from its snapshot or from the beginning",
    ),
    Edge(_S.RUNNING, _T.ENDED, _S.ENDING, "cancelled, or a rank ended badly, or all ended well"),
    Edge(_S.DUMPING, _T.ALL_DUMPED, _S.COMMITTING, "every node's part of the snapshot is in the vault"),
    Edge(_S.DUMPING, _T.PARKED, _S.FROZEN, "these nodes cannot dump: the processes stand still in place"),
    Edge(_S.DUMPING, _T.ROLLED_BACK, _S.HOLDING, "the dump failed: the processes go on under a new epoch"),
    Edge(
        _S.DUMPING,
        _T.ABANDONED,
        _S.RELEASING,
        "its processes were lost: again, from an older snapshot or from the beginning",
    ),
    Edge(_S.DUMPING, _T.ENDED, _S.ENDING, "cancelled, or a rank had ended"),
    Edge(_S.COMMITTING, _T.COMMITTED, _S.RELEASING, "the snapshot is safe: the processes may go"),
    Edge(
        _S.DUMPING,
        _T.KEPT,
        _S.JOINING,
        "a checkpoint's parts are all made: the same processes go on under the same proxies and epoch, and "
        "the parts are stored and committed meanwhile",
    ),
    Edge(
        _S.COMMITTING,
        _T.SWITCHED,
        _S.HOLDING,
        "the ranks that move are safe: they are restored elsewhere, the others adopted where they stand",
    ),
    Edge(
        _S.COMMITTING, _T.ROLLED_BACK, _S.HOLDING, "the snapshot could not be committed: the processes go on"
    ),
    Edge(_S.COMMITTING, _T.ENDED, _S.ENDING, "cancelled"),
    Edge(_S.RELEASING, _T.ALL_GONE, _S.WAITING, "its devices are free"),
    Edge(_S.RELEASING, _T.MOVED, _S.HOLDING, "its devices are free, and others are reserved for it"),
    Edge(_S.RELEASING, _T.ENDED, _S.ENDING, "cancelled"),
    Edge(
        _S.FROZEN,
        _T.PLACED,
        _S.HOLDING,
        "its devices are free again: the processes are adopted under a new epoch",
    ),
    Edge(_S.FROZEN, _T.ENDED, _S.ENDING, "cancelled, or a frozen rank was killed"),
    Edge(_S.ENDING, _T.ALL_GONE, _S.OVER, "results are saved, nothing is left on the nodes"),
)
_NEXT = {(edge.stage, edge.trigger): edge.next for edge in TABLE}


def next_stage(stage: Stage, trigger: Trigger) -> Stage:
    """Where a trigger leads. KeyError: that move is not permitted."""
    return _NEXT[stage, trigger]
