"""What the HTTP interface speaks: requests and answers of `/v1`. Times are wall-clock seconds, sizes bytes.

| method and path | body -> answer |
| --- | --- |
| GET /v1/health | -> Health |
| POST /v1/blobs | raw .tar.gz of a work directory -> {"blob": sha256} |
| POST /v1/jobs[?as=ID] | JobRequest -> JobView (201) |
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
| GET /v1/queue, /v1/jobs/{job}/why, /v1/quotas, ... | the scheduler: wire/schedule.py |
| WS /v1/agents | wire/agent.py |
| GET /v1/internal/blobs/{blob} | for agents: raw bytes |
| GET /v1/internal/vault/{region}/{snapshot} | for agents: an archived manifest; 202: still being archived |
| POST /v1/internal/vault/{region}/chunks | for agents: ids -> stream (vault/archive/shipping.py) |
| /v1/internal/told, ... | between the controllers of regions and the global one: wire/between.py |

Every request carries `Authorization: Bearer TOKEN`. Errors are Problem documents (application/problem+json,
RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.model.job import CheckpointRule, JobKind
from midstep.model.phase import Stall, StepTiming
from midstep.model.tiers import Priority, Tier
from midstep.wire.schedule import FractionView

CUT_OFF = ("region_cut_off", "region_silent")  # codes: it does not answer; it may have heard what was asked
CUT_OFF_HEADER = "Midstep-Cut-Off"  # regions that cannot be reached, which the answer lacks


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
    cut_off: tuple[str, ...] = ()  # regions that the global controller cannot reach


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A submission. ``command`` may be a launcher's: the service unwraps it. ``devices`` None: the launcher's
    world size, or 1; below 1: a part of a device, for one rank. ``ranks`` None: the launcher's world size, or
    ``devices``. ``from_snapshot``: a snapshot, or a job (its newest one), to start from; command,
    environment, files and world size are then its own.
    """

    command: tuple[str, ...] = ()
    devices: float | None = None
    ranks: int | None = None
    name: str = ""
    tier: Tier | None = None  # None: standard if that can be promised, else basic
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
    priority: Priority = Priority.MEDIUM
    project: str = ""
    min_devices: int | None = None  # None: 1
    elastic: bool = True  # False: exactly as many as it asks for
    spot_ok: bool = False  # what it is promised may stand on spot nodes


@dataclass(frozen=True, slots=True)
class MigrateRequest:
    """Where to: the name of a node or of a region. ``copy_ahead``: to another region, copy as much as
    possible while the job runs.
    """

    to: str
    copy_ahead: bool = True


@dataclass(frozen=True, slots=True)
class ResizeRequest:
    """How many devices from now on, from 1 to the world size, None: as the scheduler sees fit; ``to``: the
    name of a node or region, to move there at the same time.
    """

    devices: int | None = None
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
    one costs; ``next_s``: when the next one is due; ``at_risk_s``: how much work would be lost now;
    ``keep``: so many snapshots stay in the archive.
    """

    every_s: float | None = None
    why: str = ""
    pause_s: float | None = None
    next_s: float | None = None
    at_risk_s: float = 0.0
    taken: int = 0
    keep: int = 2


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
    devices: int | float
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
    devices_now: int | float = 0  # that it has; `devices` is what it was submitted with
    devices_wanted: int | float = 0  # that it shall have: by the last resize, else `devices`
    checkpoints: CheckpointView = CheckpointView()
    older_snapshot: str = ""  # used if `snapshot` is damaged
    priority: Priority = Priority.MEDIUM
    project: str = ""
    min_devices: int | float = 1
    pinned: bool = False  # its user said how many devices: the scheduler does not change the number
    received: FractionView = field(default_factory=FractionView)


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
    """One device and the jobs on it. ``parts``: how much of it each has that does not have all of it."""

    index: int
    device_type: str
    cpus: tuple[int, ...]
    jobs: tuple[str, ...]
    parts: dict[str, float] = field(default_factory=dict[str, float])


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
    cordoned: bool = False  # nothing new is placed there
    spot: bool = False  # it may be taken away at short notice


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
