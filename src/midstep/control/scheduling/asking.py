"""Records and nodes as the scheduler is told of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from midstep.control.scheduling.draining import failed_move
from midstep.engine.record import Intent, JobRecord
from midstep.model.fleet import Node
from midstep.model.job import MILLI, JobSpec, Placement
from midstep.model.lifecycle import Stage
from midstep.policy.asks import Ask, Grant, NodeShape

Counts = Mapping[str, int]  # node -> devices
_GONE = (Stage.ENDING, Stage.OVER)
_TYPES = "#"  # of a node with several types of devices each is one of the scheduler's nodes


def shapes(node: Node) -> list[NodeShape]:
    """A node, by types of devices."""
    found: dict[str, int] = {}
    for device in node.devices:
        found[device.device_type] = found.get(device.device_type, 0) + 1
    several = len(found) > 1
    return [
        NodeShape(
            f"{node.name}{_TYPES}{kind}" if several else node.name,
            node.region,
            node.cluster,
            kind,
            count,
            spot=node.spot,
        )
        for kind, count in sorted(found.items())
    ]


def node_of(name: str) -> str:
    """The node that one of the scheduler's belongs to."""
    return name.partition(_TYPES)[0]


def ask_of_spec(spec: JobSpec, job_id: str, *, or_basic: bool) -> Ask:
    """A job that is being submitted."""
    return Ask(
        job_id,
        spec.devices,
        tier=spec.tier,
        priority=spec.priority,
        project=spec.project,
        least=spec.least,
        milli=spec.milli,
        device_types=(spec.device_type,) if spec.device_type else (),
        region=spec.region or "",
        or_basic=or_basic,
        spot_ok=spec.spot_ok,
    )


def ask(record: JobRecord, now_s: float) -> Ask | None:
    """What a job wants of the scheduler; None: nothing. Its user's word on the number of its devices is kept
    to; what cannot be moved, or was tried in vain just now, is left where it is."""
    if record.stage in _GONE or record.intent in (Intent.SUSPEND, Intent.CANCEL):
        return None
    if record.waits and tied(record):
        return None
    spec = record.spec
    number = spec.devices if record.asked is None else _kept_to(record, record.asked)
    movable = not record.in_place and not tied(record) and failed_move(record, now_s) is None
    here = record.placement.region if record.placement and not movable else spec.region
    return Ask(
        record.job_id,
        number,
        tier=spec.tier,
        priority=spec.priority,
        project=spec.project,
        least=spec.least if record.asked is None else number,
        milli=spec.milli,
        device_types=(spec.device_type,) if spec.device_type else (),
        region=here or "",
        may_move=movable,
        or_basic=True,  # it was admitted before
        spot_ok=spec.spot_ok,
    )


def _kept_to(record: JobRecord, asked: int) -> int:
    """Until a resize by hand is under way, the scheduler knows of the number before it."""
    devices = has(record)
    return sum(devices.values()) if devices else asked


def tied(record: JobRecord) -> bool:
    """Its user said where it shall be, or it stands still in place: it waits for just that."""
    node = record.target.node if record.target is not None else record.spec.node
    return node is not None or record.target is not None or record.stage is Stage.FROZEN


def has(record: JobRecord) -> Counts | None:
    """The devices that a job has, or will have when what is under way has come to its end."""
    placement = record.next or record.placement
    leaves = record.yields or record.stage in (Stage.RELEASING, Stage.FROZEN)
    if placement is None or record.stage in (Stage.WAITING, *_GONE) or (leaves and record.next is None):
        return None
    return counts(placement)


def counts(placement: Placement) -> Counts:
    """Devices by node."""
    return {
        place.node: len({index for rank in place.ranks for index in rank.devices})
        for place in sorted(placement.nodes, key=lambda place: place.node)
    }


def grant_of(devices: Counts, milli: int = MILLI, slot: int = -1) -> Grant:
    """For the scheduler."""
    names = sorted(devices)
    return Grant(tuple(names), tuple(devices[name] for name in names), milli, slot)


def counts_of(grant: Grant) -> Counts:
    """From the scheduler."""
    found: dict[str, int] = {}
    for name, count in sorted(zip(grant.nodes, grant.counts, strict=True)):
        found[node_of(name)] = found.get(node_of(name), 0) + count
    return found
