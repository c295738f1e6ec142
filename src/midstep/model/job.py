"""What a user submits, and where it runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from midstep.model.tiers import Priority, Tier

MILLI = 1000  # parts of a device


class JobKind(enum.StrEnum):
    """`train` ends by itself, `serve` answers requests."""

    TRAIN = "train"
    SERVE = "serve"


@dataclass(frozen=True, slots=True)
class CheckpointRule:
    """How often a running job is saved. ``every_s`` None: chosen from what a checkpoint costs and how often
    processes are lost, and then within the bounds (None: the fleet's). ``keep``: so many of its snapshots
    stay in the archive while it lives (None: the fleet's); where it is all that is said, the rest is as the
    fleet does."""

    off: bool = False
    every_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as submitted. ``command`` is what every rank runs (launchers are unwrapped before)."""

    command: tuple[str, ...]
    world_size: int = 1
    devices: int = 1
    name: str = ""
    tier: Tier = Tier.STANDARD
    kind: JobKind = JobKind.TRAIN
    device_type: str | None = None  # None: any one type
    env: dict[str, str] = field(default_factory=dict[str, str])
    workdir_blob: str | None = None  # the uploaded work directory; None: an empty one
    threads: int = 1  # math threads per rank: results must not depend on the placement
    uid: int = 0
    gid: int = 0
    region: str | None = None  # None: any
    node: str | None = None  # None: any
    retries: int = 0  # how often it is run again, from its newest snapshot, after it ended badly by itself
    checkpoints: CheckpointRule | None = None  # None: as the fleet does
    priority: Priority = Priority.MEDIUM
    project: str = ""  # "team/sub/...", whose quota it is under; '': of nobody in particular
    min_devices: int = 1  # the scheduler shrinks it no further
    spot_ok: bool = False  # what it is promised may stand on nodes that may be taken away
    milli: int = MILLI  # how much of its devices it takes; less than all only of one, for one rank

    def amount(self, devices: int) -> int | float:
        """So many of its devices, as users count them: a part of one is a fraction."""
        return devices if self.milli == MILLI else devices * self.milli / MILLI

    @property
    def least(self) -> int:
        """Devices that it has at least while it runs, unless its user says otherwise."""
        return min(self.min_devices, self.devices)


@dataclass(frozen=True, slots=True)
class RankPlace:
    """One rank of a placement. ``home`` is the virtual host whose files the rank sees: fixed at the first
    placement, whatever node it is on later, so that LOCAL_RANK and the file tree never change under the job.
    """

    rank: int
    home: int
    local_rank: int
    local_world_size: int
    devices: tuple[int, ...]  # indices on the node
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePlace:
    """The ranks of one job on one node. ``index`` numbers the job's nodes; 0 leads (it hosts rank 0)."""

    node: str
    index: int
    ranks: tuple[RankPlace, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which rank is on which device. A job is in one region at a time."""

    region: str
    nodes: tuple[NodePlace, ...]

    def node_of(self, rank: int) -> str:
        """The node that hosts a rank. KeyError: there is no such rank."""
        for place in self.nodes:
            if any(r.rank == rank for r in place.ranks):
                return place.node
        raise KeyError(rank)

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return len({(place.node, index) for place in self.nodes for r in place.ranks for index in r.devices})

    def homes_by_node(self) -> dict[int, str]:
        """Virtual host -> the node that it is on."""
        return {rank.home: place.node for place in self.nodes for rank in place.ranks}


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A committed snapshot, in the vault of a region."""

    snapshot_id: str
    region: str
    nbytes: int = 0
