"""Facets of a job's record that come and go: what is being saved, copied, or handed over."""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.job import SnapshotRef
from midstep.model.phase import StepTiming


@dataclass(frozen=True, slots=True)
class NodeStep:
    """One step of a move on one node ('' for the controller itself)."""

    node: str
    timing: StepTiming


@dataclass(frozen=True, slots=True)
class Storing:
    """A checkpoint whose parts are made, and on their way into the vault while the job runs on."""

    snapshot_id: str
    cut_s: float
    store: dict[str, str] = field(default_factory=dict[str, str])
    committing: bool = False  # they are there: the manifest is being written


@dataclass(frozen=True, slots=True)
class Saves:
    """What is known of a job's checkpoints."""

    taken: int = 0  # begun, successful or not
    pause_s: float | None = None  # what one costs: a moving average, from the cut until all run again
    beside_s: float | None = None  # of a node's processor, beside that: a moving average
    tried_s: float | None = None  # when the last one was begun
    refused: int = 0  # that came to nothing, in a row
    since_s: float | None = None  # what was done since then would be lost now


@dataclass(frozen=True, slots=True)
class Ahead:
    """A migration to another region of which as much as possible is copied while the job runs."""

    begun_s: float
    rounds: int = 0  # copies that were begun
    copying: SnapshotRef | None = None  # what is being copied now
    saving: bool = False  # a checkpoint is being taken, to be copied
    before: str = ""  # the newest snapshot when that was begun, or the one copied last
    sent_bytes: int = 0  # by the last copy
    done_bytes: int = 0  # by this one, as far as is known
    left_bytes: int = 0
    steps: tuple[NodeStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Parting:
    """The job goes to the controller of another region. ``copies``: it runs on until it is told that devices
    are free there (and, if ``ahead``, that as much as possible was copied); ``handed``: the other controller
    has it, and what is here is only kept for as long as that one reads of it."""

    region: str
    since_s: float
    copies: bool = False
    ahead: bool = False
    handed: bool = False
    why: str = ""  # the scheduler's reason; '': its user asked
    node: str | None = None  # there and nowhere else in that region
    devices: int | None = None  # that it shall have there; None: as here
