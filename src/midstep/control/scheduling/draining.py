"""Where the jobs of a node that is being emptied go. Pure: what to do next about each is worked out from the
records; the planner does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from midstep.control.scheduling import causes
from midstep.control.scheduling.cordons import Drain
from midstep.control.scheduling.scheduler import picture, want_moved
from midstep.engine.events import Copied, Event, MigrateAsked, Placed, Preempted
from midstep.engine.record import JobRecord
from midstep.model.fleet import NodeStatus
from midstep.model.lifecycle import Stage
from midstep.policy.picture import Picture, Plan, Want
from midstep.policy.place import plan
from midstep.wire.schedule import DrainView, LeavingView

RETRY_S = 30.0  # after a move that failed; longer after each
OFFER_S = 10.0  # that a job is offered to other regions before it makes do with fewer devices in its own
_UNASKED = ("checkpoint", "reconnect", "recover", "copy-ahead")  # moves that nobody decides upon


@dataclass(frozen=True, slots=True)
class Leaving:
    """A job that is on the node. ``event`` None: nothing to be done now, ``cause`` says why; ``offered``: the
    level above may find a place for it."""

    job_id: str
    state: str  # moving, waiting, stuck
    cause: object
    event: Event | None = None
    to: str = ""
    offered: bool = False


def leaving(
    node: str,
    drain: Drain,
    records: Iterable[JobRecord],
    nodes: Mapping[str, NodeStatus],
    cordoned: tuple[str, ...],
    now_s: float,
    others: bool = False,
) -> list[Leaving]:
    """What becomes of each job that is still on a node. Each is looked at as if it were the only one.
    ``others``: there are regions with controllers of their own."""
    known = list(records)
    world = _World(known, nodes, cordoned, now_s, others)
    return [_next(record, node, drain, world) for record in known if node in nodes_with(record)]


def nodes_with(record: JobRecord) -> set[str]:
    """Nodes where something of the job is, or is reserved."""
    placements = (record.placement, record.next, record.back)
    names = {place.node for placement in placements if placement for place in placement.nodes}
    return names | set(record.leftovers) | {place.node for place in record.parked}


def drain_view(node: str, drain: Drain, found: list[Leaving], records: Mapping[str, JobRecord]) -> DrainView:
    """As users see it."""
    here = {one.job_id for one in found}
    left = tuple(
        LeavingView(one.job_id, records[one.job_id].spec.name, one.state, str(one.cause), one.to)
        for one in found
    )
    moved = tuple(job_id for job_id in drain.jobs if job_id not in here)
    return DrainView(node, drain.since_s, drain.deadline_s, not found, moved, left)


@dataclass(frozen=True, slots=True)
class _World:
    records: list[JobRecord]
    nodes: Mapping[str, NodeStatus]
    cordoned: tuple[str, ...]
    now_s: float
    others: bool


def _next(record: JobRecord, node: str, drain: Drain, world: _World) -> Leaving:
    late = drain.deadline_s is not None and world.now_s >= drain.deadline_s
    at_home = record.placement is not None and node in {place.node for place in record.placement.nodes}
    if record.in_place and at_home:
        return Leaving(record.job_id, "stuck", causes.CannotLeave(node))
    if record.would_move:
        return Leaving(record.job_id, "waiting", record.waiting or "it waits for devices elsewhere")
    if not record.settled or not at_home:
        return Leaving(record.job_id, "moving", f"it is {record.shown}")
    if record.parting is not None:
        overdue = Copied(message=str(causes.DrainOverdue(node))) if late else None
        to = record.parting.region
        return Leaving(record.job_id, "moving", causes.NodeDrained(node, to), overdue, to)
    if (failed := failed_move(record, world.now_s)) is not None:
        return Leaving(record.job_id, "waiting", failed)
    patient = world.now_s < max(drain.since_s, record.running_s or 0.0) + OFFER_S
    found = _elsewhere(record, node, world, patient)
    if found.event is None and late:
        cause = causes.DrainOverdue(node)
        return Leaving(record.job_id, "moving", cause, Preempted(record.version, str(cause)))
    return found


def _elsewhere(record: JobRecord, node: str, world: _World, patient: bool) -> Leaving:
    """Within its region, where only what is on the node has to move; else to another region; else (where it
    can be offered to others, not while it is ``patient``) in its region on fewer devices."""
    assert record.placement is not None
    fleet, here = picture(world.records, world.nodes), record.placement.region
    if record.spec.node == node and record.target is not None:
        pass  # its user has sent it elsewhere since
    elif record.spec.node == node:
        return Leaving(record.job_id, "stuck", causes.TiedToNode(node))
    near = replace(want_moved(record, world.cordoned), region=here, at=record.placement)
    answer = plan(fleet, [near])
    far = _far(record, here, fleet, world) if not answer.starts else None
    offered = world.others and record.spec.region is None
    if not answer.starts and far is None and record.asked is None and not (offered and patient):
        answer = _smaller(record, near, fleet) or answer
    if answer.starts:
        start = answer.starts[0]
        to = ", ".join(sorted({place.node for place in start.placement.nodes}))
        cause = causes.NodeDrained(node, to)
        event = Placed(start.placement, record.version, start.in_place, start.carries, str(cause))
        return Leaving(record.job_id, "moving", cause, event, to)
    if far is not None:
        event = MigrateAsked(region=far, ahead=True)
        return Leaving(record.job_id, "moving", causes.NodeDrained(node, far), event, far)
    reason = causes.Offered(node) if offered and patient else answer.waits[0].reason
    return Leaving(record.job_id, "waiting", reason, offered=offered)


def _far(record: JobRecord, here: str, fleet: Picture, world: _World) -> str | None:
    """Another region that has room for all of it."""
    if record.spec.region is not None:
        return None
    for region in sorted({status.node.region for status in world.nodes.values()} - {here}):
        if plan(fleet, [replace(want_moved(record, world.cordoned), region=region)]).starts:
            return region
    return None


def _smaller(record: JobRecord, want: Want, fleet: Picture) -> Plan | None:
    """With fewer devices, as many as there are; it grows again later."""
    for devices in range(record.devices - 1, record.spec.least - 1, -1):
        found = plan(fleet, [replace(want, spec=replace(want.spec, devices=devices))])
        if found.starts:
            return found
    return None


def failed_move(record: JobRecord, now_s: float) -> causes.MoveFailed | None:
    """Why a job is left alone for a while: moves of it came to nothing, the newest one first."""
    tried = [move for move in record.moves if move.kind not in _UNASKED]
    failed = list(takewhile(lambda move: move.ok is False, reversed(tried)))
    if not failed or failed[0].ended_s is None:
        return None
    again_s = failed[0].ended_s + RETRY_S * 2 ** min(len(failed) - 1, 6) - now_s
    return causes.MoveFailed(failed[0].kind, failed[0].message, again_s) if again_s > 0 else None


def still_there(node: str, records: Iterable[JobRecord]) -> tuple[str, ...]:
    """The jobs of which something is on a node."""
    return tuple(r.job_id for r in records if r.stage is not Stage.OVER and node in nodes_with(r))
