"""What the global controller and those of regions say to each other, below /v1/internal. Times are seconds.

| method and path | body -> answer |
| --- | --- |
| GET /told?seen= | -> RegionTold: what a region tells the level above it |
| POST /jobs/{job}/leave | LeaveRequest -> JobView (202): go to another region |
| POST /jobs/{job}/passport | LeaveRequest -> the passport that it would get; nothing is done |
| POST /jobs/check | such a passport -> 204, or 422: it would be turned away |
| POST /jobs/{job}/copied | CopiedNews -> JobView: all that is worth it was copied ahead |
| POST /jobs/{job}/hand-over | -> a passport (opaque; its hops in a header): given away; again: the same one |
| POST /jobs | a passport -> JobView (201); again: nothing; 409 no_blob; 422 turned_away: now and for ever |
| POST /jobs/{job}/turned-back?hops= | Problem -> JobView: the receiver will never take it; it stays |
| POST /jobs/{job}/not-needed?hops= | -> 204: nobody reads any more of what is left of it |
| GET /jobs/{job} | -> JobView, also of a job that was handed over |
| GET /jobs/{job}/files | -> tar stream, also of a job that was handed over |
| POST /copies | CopyOrder -> CopyStatus: bring a snapshot into this region's archive; again: how far it is |
| DELETE /copies/{snapshot}?forget= | -> 204: not wanted any more; ``forget``: nor what has come of its job |
| GET, PUT /jobs/{job}/logs/{rank}?offset= | raw bytes of a rank's output, as it was handed over |
| GET /events?job=&since_s=&limit= | -> list[EventView] later than that, oldest first |

A region decides about its jobs alone. The global controller holds nothing that it could not ask for again:
which job is where, and what is on its way, is written in the regions' journals.
"""

from __future__ import annotations

from dataclasses import dataclass

from midstep.model.tiers import Tier

HOPS = "Midstep-Hops"  # a header: of the passport that is the answer


@dataclass(frozen=True, slots=True)
class ClusterTold:
    """The devices of one type in one cluster; see `policy/levels/summary.py`."""

    region: str
    cluster: str
    device_type: str
    size: int
    free: int
    largest: int
    room: float
    room_spot: float
    waiting: float


@dataclass(frozen=True, slots=True)
class JobTold:
    """Where a job is. ``away``: the region that it was handed over to; ``leaving``: where it is to go, as
    soon as it is ``ready``; ``copies``: it runs on until ``least`` devices of these types are free there, and
    (``ahead``) as much of it as possible was copied. ``rests_on``: regions that hold its snapshots;
    ``snapshot``: its newest, ``snapshot_region`` has it. ``over``: it has ended."""

    job_id: str
    name: str
    submitted_s: float
    hops: int = 0
    away: str = ""
    leaving: str = ""
    ready: bool = False
    copies: bool = False
    ahead: bool = False
    over: bool = False
    ranks: int = 1
    least: int = 1
    node: str = ""
    types: tuple[str, ...] = ()
    rests_on: tuple[str, ...] = ()
    snapshot: str = ""
    snapshot_region: str = ""
    snapshot_bytes: int = 0
    saves: bool = False  # a checkpoint is being made
    workdir_blob: str = ""


@dataclass(frozen=True, slots=True)
class WaiterTold:
    """A job that waits, and may run in another region. ``guaranteed``: devices that its guarantee must stand
    on; ``data``: where its snapshot is. ``stranded``: this region could never run it as it is now.
    ``drained``: it runs, on this node, which it has to leave."""

    job_id: str
    devices: int
    least: int
    tier: Tier
    types: tuple[str, ...] = ()
    data: str = ""
    snapshot_bytes: int = 0
    guaranteed: float = 0.0
    spot_ok: bool = False
    waited_s: float = 0.0
    stranded: bool = False
    drained: str = ""


@dataclass(frozen=True, slots=True)
class RegionTold:
    """``serial``: of the list of jobs, which is left out (None) when it is as it was ``seen``. ``nodes``: all
    names. ``waiting``: in the order in which they go, the first ones of many; before them those that have to
    leave their nodes."""

    regions: tuple[str, ...]
    serial: str
    jobs: tuple[JobTold, ...] | None
    nodes: tuple[str, ...] = ()
    clusters: tuple[ClusterTold, ...] = ()
    waiting: tuple[WaiterTold, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """Where to; ``copy_ahead``: after as much as possible was copied; ``why``: the scheduler's reason;
    ``node``: there and nowhere else; ``devices``: that it shall have there, None: as here."""

    region: str
    copy_ahead: bool = False
    why: str = ""
    node: str | None = None
    devices: int | None = None


@dataclass(frozen=True, slots=True)
class CopiedNews:
    """How often, how much; ``message``: why no more was."""

    rounds: int = 0
    nbytes: int = 0
    message: str = ""
