"""Parts of devices: the scheduler numbers the shared devices of a node (slots), the records say which device
that is. Jobs with the same slot share one device; which one, the first of them decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from midstep.engine.record import JobRecord
from midstep.model.job import MILLI, Placement
from midstep.policy.asks import Grant
from midstep.policy.scheduler import Scheduler


def beside(scheduler: Scheduler, node: str, job_id: str, slot: int) -> tuple[str, ...]:
    """With whom a job shares the device that the scheduler has given it."""
    return tuple(
        sorted(
            other.ask.job_id
            for other in scheduler.on(node)
            if other.slot == slot and other.ask.job_id != job_id
        )
    )


def amount_of(grant: Grant) -> int | float:
    """Devices, as users count them."""
    return grant.devices if grant.milli == MILLI else grant.devices * grant.milli / MILLI


def slot_of(scheduler: Scheduler, records: Mapping[str, JobRecord], node: str, record: JobRecord) -> int:
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
        if _device(known) == mine:
            return other.slot
        slots.add(other.slot)
    return next(slot for slot in range(len(slots) + 1) if slot not in slots)


def _device(record: JobRecord) -> tuple[str, int] | None:
    placement: Placement | None = record.next or record.placement
    if placement is None:
        return None
    place = placement.nodes[0]
    return place.node, place.ranks[0].devices[0]
