"""What the scheduler is told: nodes, jobs and what they ask for, and its settings. All of it values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from midstep.model.job import MILLI as MILLI
from midstep.model.tiers import Priority, Tier


@dataclass(frozen=True, slots=True)
class NodeShape:
    """A node, with devices of one type (one with two types is two of these, under two names). ``spot``: it
    may be taken away at short notice."""

    name: str
    region: str
    cluster: str
    device_type: str
    devices: int
    rack: str = ""
    spot: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job wants. ``devices``: one for each rank; with ``least`` of them it can do (1 by default;
    the same number: not elastic). ``milli``: how much of its only device it needs. ``device_types``: one
    of these, empty: any. ``region``: there and nowhere else; ``data``: the region that its data is in.
    ``or_basic``: it would rather run without a guarantee than not at all. ``spot_ok``: its guarantee may
    stand on spot nodes."""

    job_id: str
    devices: int
    tier: Tier = Tier.STANDARD
    priority: Priority = Priority.MEDIUM
    project: str = ""
    least: int = 1
    milli: int = MILLI
    device_types: tuple[str, ...] = ()
    region: str = ""
    data: str = ""
    snapshot_bytes: int = 0
    may_move: bool = True
    or_basic: bool = False
    spot_ok: bool = False


def stands_on(ask: Ask) -> float:
    """Devices that its guarantee must stand on: all of them, as one device cannot be had in part. Of a part
    the next power of two: 0.3 counts as a half, 0.6 as a device. The larger ones first, such parts fill
    devices without a rest, so what is promised can always be packed."""
    return ask.devices / pieces(ask.milli)


def pieces(milli: int) -> int:
    """How many such parts a device is divided into, by promises: a power of two."""
    return 1 << (MILLI // milli).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Grant:
    """Devices for a job: so many of each node; ``milli`` of each. ``slot``: where a part of a device is
    given, which of the node's shared devices; jobs with the same one share it."""

    nodes: tuple[str, ...]
    counts: tuple[int, ...]
    milli: int = MILLI
    slot: int = -1

    @property
    def devices(self) -> int:
        """How many, whole or in part."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Costs:
    """What an action costs, in seconds of the job's time, but for its snapshot's bytes."""

    suspend_s: float = 10.0
    resume_s: float = 15.0
    resize_within_s: float = 2.0
    resize_across_s: float = 25.0
    splice: float = 1.03  # time of a step on shared devices over that of its parts
    bytes_per_s: float = 1e9  # within a region
    far_bytes_per_s: float = 1e8  # between regions


@dataclass(frozen=True, slots=True)
class Quota:
    """A project's share of the fleet. ``devices``: what it is due; more only while others leave it.
    ``limit``: never more, None: no limit. ``weight``: its share of what nobody is due, beside its siblings;
    that of a project without a quota is 1."""

    devices: float
    limit: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How it decides. ``quotas``: by project path ("team", "team/sub"); none: everybody is alike."""

    costs: Costs = Costs()
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    keep: float = 0.0  # share of a pool that no guarantee may stand on
    tick_s: int = 60  # at least so often it looks at guarantees and at who has had enough
    settle_s: int = 120  # a job that has just been started or resized is left alone so long
    gap: int = 2  # ranks (half octaves of work) by which a waiting job must be better to displace another
    spill_s: int = 300  # a job that has waited so long looks at other regions
    per_event: int = 24  # jobs tried at one moment; the rest a second later
