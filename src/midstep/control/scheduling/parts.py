"""Parts of devices: the scheduler numbers the shared devices of a node (slots), the records say which device
that is. Jobs with the same slot share one device; which one, the first of them decides. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

from midstep.control.scheduling.asking import node_of
from midstep.engine.record import JobRecord
from midstep.model.job import MILLI, Placement
from midstep.policy.asks import Grant
from midstep.policy.picture import DeviceKey
from midstep.policy.plan import Resize, Start
from midstep.policy.scheduler import Scheduler


def beside(
    scheduler: Scheduler, records: Mapping[str, JobRecord], todo: Container[str], action: Start | Resize
) -> tuple[DeviceKey, ...]:
    """The device that the scheduler has given a job a part of: where those are who have the rest of it. ():
    one that nobody has; there are none, or they have yet to come. ``todo``: jobs that are not yet where they
    shall be."""
    grant = action.grant
    on = sorted(scheduler.on(grant.nodes[0]), key=lambda other: other.ask.job_id)
    for other in on:
        name = other.ask.job_id
        if other.slot == grant.slot and name != action.job_id and name not in todo and name in records:
            device = _device(records[name])
            if device is not None and device[0] == node_of(grant.nodes[0]):
                return (device,)
    return ()


def is_there(
    scheduler: Scheduler, records: Mapping[str, JobRecord], todo: Container[str], action: Start | Resize
) -> bool:
    """A job that is on its node is also on its device; if nobody has the rest of that yet: on one that is no
    other one's."""
    mine, shared = _device(records[action.job_id]), beside(scheduler, records, todo, action)
    if shared:
        return mine in shared
    return not any(
        other.slot >= 0 and name not in todo and name in records and _device(records[name]) == mine
        for other in scheduler.on(action.grant.nodes[0])
        if (name := other.ask.job_id) != action.job_id
    )


def amount_of(grant: Grant) -> int | float:
    """Devices, as users count them."""
    return grant.devices if grant.milli == MILLI else grant.devices * grant.milli / MILLI


def slot_of(
    scheduler: Scheduler,
    records: Mapping[str, JobRecord],
    todo: Container[str],
    node: str,
    record: JobRecord,
) -> int:
    """The scheduler's number for the device that a job has a part of: that of those who have the rest of it,
    else one of its own. -1: the job has whole devices."""
    if record.spec.milli == MILLI:
        return -1
    mine = _device(record)
    slots: set[int] = set()
    for other in scheduler.on(node):
        known = records.get(other.ask.job_id)
        if other.ask.job_id == record.job_id or known is None or other.slot < 0:
            continue
        if _device(known) == mine and other.ask.job_id not in todo:
            return other.slot
        slots.add(other.slot)
    return next(slot for slot in range(len(slots) + 1) if slot not in slots)


def _device(record: JobRecord) -> DeviceKey | None:
    placement: Placement | None = record.next or record.placement
    if placement is None:
        return None
    place = placement.nodes[0]
    return place.node, place.ranks[0].devices[0]
