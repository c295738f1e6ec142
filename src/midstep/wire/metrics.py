"""What jobs do with their devices, as `GET /v1/metrics` says it. Sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.wire.schedule import FractionView


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Bytes of the rank that has most, by kind; ``resident`` of all ranks' processes together."""

    parameters: int = 0
    optimizer: int = 0
    gradients: int = 0
    other: int = 0  # activations, buffers, the interpreter and its libraries
    shared: int = 0  # of parameters and optimizer state: lie once on the device for all ranks there
    device_peak: int = 0  # the most that tensors had on a rank's GPUs at once
    resident: int = 0


@dataclass(frozen=True, slots=True)
class SizeView:
    """What the job does on so many devices. ``efficiency``: steps a second and device, to the best of all
    sizes that were seen."""

    devices: int
    steps_per_s: float
    efficiency: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class SharesView:
    """What ranks do with their time, each from 0 to 1; queueing (for a turn on the device) is part of
    waiting."""

    computing: float = 0.0
    reducing: float = 0.0
    waiting: float = 0.0
    queueing: float = 0.0


@dataclass(frozen=True, slots=True)
class PointView:
    """One reading of the short history that is kept in memory."""

    at_s: float
    steps_per_s: float
    shares: SharesView


@dataclass(frozen=True, slots=True)
class MetricsView:
    """What a job does with its devices, measured without its help. ``steps_per_s`` and ``shares`` are of the
    last seconds, None while nothing is measured; ``counted``: steps are those of an optimizer, or (up to a
    constant factor) the rhythm of collectives, or none were seen ('').
    """

    job_id: str
    name: str = ""
    state: str = ""
    devices: int | float = 0
    world_size: int = 0
    at_s: float | None = None  # of the last reading
    steps: int = 0
    counted: str = ""
    steps_per_s: float | None = None
    shares: SharesView | None = None
    reduced_bytes: int = 0  # that ranks gave to reductions, all together
    reduced_bytes_per_s: float | None = None
    computing_s: float = 0.0  # of all ranks together, so are the next three
    reducing_s: float = 0.0
    waiting_s: float = 0.0
    queueing_s: float = 0.0
    memory: MemoryView = field(default_factory=MemoryView)
    sizes: tuple[SizeView, ...] = ()
    history: tuple[PointView, ...] = ()
    received: FractionView = field(default_factory=FractionView)
