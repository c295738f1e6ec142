"""What the HTTP interface speaks: requests and answers of `/v1`. Times are wall-clock seconds, sizes bytes.

| method and path | body -> answer |
| --- | --- |
| GET /v1/health | -> Health |
| POST /v1/blobs | raw .tar.gz of a work directory -> {"blob": sha256} |
| POST /v1/jobs | JobRequest -> JobView (201) |
| GET /v1/jobs[?state=] | -> list[JobView] |
| GET /v1/jobs/{job} | -> JobView (by id, unique id prefix, or name of the newest job of that name) |
| POST /v1/jobs/{job}/suspend, /resume, /migrate (MigrateRequest), /cancel | -> JobView (202) |
| POST /v1/jobs/{job}/resize | ResizeRequest -> JobView (202) |
| POST /v1/jobs/{job}/checkpoint | -> JobView (202); `moves` says what became of it |
| GET /v1/jobs/{job}/logs?rank=0&offset=0&limit= | -> LogView |
| GET /v1/jobs/{job}/metrics, /v1/metrics | -> MetricsView; list[MetricsView] of the jobs that have devices |
| GET /v1/jobs/{job}/files | -> tar stream of the work directory: of an ended or suspended job |
| GET /v1/nodes | -> list[NodeView] |
| GET /v1/events?job=&after=0&limit= | -> list[EventView], oldest first |
| WS /v1/agents | wire/agent.py |
| GET /v1/internal/blobs/{blob} | for agents: raw bytes |
| GET /v1/internal/vault/{region}/{snapshot} | for agents: an archived manifest; 202: still being archived |
| POST /v1/internal/vault/{region}/chunks | for agents: ids -> stream (vault/archive/shipping.py) |

Every request carries `Authorization: Bearer TOKEN`. Errors are Problem documents (application/problem+json,
RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.job import CheckpointRule, JobKind
from midstep.model.phase import Stall, StepTiming
from midstep.model.tiers import Tier


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was refused. ``code`` is stable, for scripts; ``hint`` says what to do."""

    title: str
    status: int
    code: str
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The controller is up."""

    version: str
    fleet: str
    regions: tuple[str, ...]
    nodes: int
    nodes_connected: int


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A submission. ``command`` may be a launcher's: the service unwraps it. ``devices`` None: the launcher's
    world size, or 1. ``ranks`` None: the launcher's world size, or ``devices``. ``from_snapshot``: a
    snapshot, or a job (its newest one), to start from; command, environment, files and world size are then
    its own.
    """

    command: tuple[str, ...] = ()
    devices: int | None = None
    ranks: int | None = None
    name: str = ""
    tier: Tier = Tier.STANDARD
    kind: JobKind = JobKind.TRAIN
    device_type: str | None = None
    env: dict[str, str] = field(default_factory=dict[str, str])
    workdir_blob: str | None = None
    threads: int = 1
    uid: int = 0
    gid: int = 0
    region: str | None = None
    node: str | None = None
    retries: int = 0
    checkpoints: CheckpointRule | None = None
    from_snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class MigrateRequest:
    """Where to: the name of a node or of a region. ``copy_ahead``: to another region, copy as much as
    possible while the job runs.
    """

    to: str
    copy_ahead: bool = True


@dataclass(frozen=True, slots=True)
class ResizeRequest:
    """How many devices from now on, from 1 to the world size; ``to``: the name of a node or region, to move
    there at the same time.
    """

    devices: int
    to: str | None = None


@dataclass(frozen=True, slots=True)
class RankView:
    """One rank now. ``node`` is empty while the job has no devices."""

    rank: int
    node: str
    devices: tuple[int, ...]
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class MoveView:
    """One suspend, resume, migration or resize: what it cost. ``steps`` in the order they happened, named
    ``step@node``.
    """

    kind: str
    started_s: float
    duration_s: float
    nbytes: int
    steps: tuple[StepTiming, ...]
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """How a running job is saved. ``every_s`` None: it is not; ``why`` says what decided. ``pause_s``: what
    one costs; ``next_s``: when the next one is due; ``at_risk_s``: how much work would be lost now.
    """

    every_s: float | None = None
    why: str = ""
    pause_s: float | None = None
    next_s: float | None = None
    at_risk_s: float = 0.0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that `midstep show` prints. ``state`` is a JobState's value, ``reason`` says why it is in
    it.
    """

    job_id: str
    name: str
    state: str
    reason: str
    command: tuple[str, ...]
    world_size: int
    devices: int
    tier: Tier
    kind: JobKind
    epoch: int
    region: str
    ranks: tuple[RankView, ...]
    submitted_s: float
    started_s: float | None
    ended_s: float | None
    exit_code: int | None
    failure: str
    last_lines: tuple[str, ...]
    snapshot: str
    snapshot_bytes: int
    moves: tuple[MoveView, ...]
    stalls: tuple[Stall, ...]
    devices_now: int = 0  # that it has; `devices` is what it was submitted with
    devices_wanted: int = 0  # that it shall have: by the last resize, else `devices`
    checkpoints: CheckpointView = CheckpointView()
    older_snapshot: str = ""  # used if `snapshot` is damaged


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
    devices: int = 0
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


@dataclass(frozen=True, slots=True)
class LogView:
    """Bytes [offset, next_offset) of a rank's output as text (undecodable bytes replaced). ``ended``: none
    will follow unless the job is resumed.
    """

    text: str
    offset: int
    next_offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device and the jobs on it."""

    index: int
    device_type: str
    cpus: tuple[int, ...]
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node."""

    name: str
    region: str
    address: str
    connected: bool
    last_seen_s: float
    freezes_in_place: bool
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of the fleet's history. ``kind`` is stable, for scripts; ``message`` is for people."""

    number: int
    at_s: float
    job_id: str
    node: str
    kind: str
    message: str
    duration_s: float | None = None
    nbytes: int | None = None
