"""What the policy is shown of the jobs and nodes, and which jobs want devices. Pure; the service applies the
plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from midstep.engine.check import users_of_devices
from midstep.engine.record import Intent, JobRecord
from midstep.model.fleet import NodeStatus
from midstep.model.job import MILLI, JobSpec
from midstep.model.lifecycle import Stage
from midstep.policy.picture import Picture, Want


def turn(record: JobRecord) -> tuple[int, int, float, str]:
    """By what the queue is ordered: tier, priority, since when."""
    spec = record.spec
    return (spec.tier.turn, spec.priority.turn, record.queued_s, record.job_id)


def picture(records: Iterable[JobRecord], nodes: Mapping[str, NodeStatus]) -> Picture:
    """The fleet as it is now."""
    statuses = [status for _, status in sorted(nodes.items())]
    users = users_of_devices(records)
    shared = {key: jobs for key, jobs in users.items() if MILLI not in jobs.values()}
    return Picture(
        nodes=tuple(status.node for status in statuses if status.connected),
        used={key: next(iter(jobs)) for key, jobs in users.items() if key not in shared},
        down=tuple(status.node for status in statuses if not status.connected),
        shared=shared,
    )


def wants(records: Iterable[JobRecord], cordoned: tuple[str, ...] = ()) -> list[Want]:
    """The jobs that want devices now: those that wait, those that shall migrate and have nothing reserved
    yet, and those that shall have more or fewer. ``cordoned``: nodes that take nothing new."""
    return [want for record in records if (want := _want(record, cordoned)) is not None]


def want_now(record: JobRecord, cordoned: tuple[str, ...] = ()) -> Want | None:
    """What a job lacks now; None: nothing, or something else is under way with it."""
    if record.settled and record.asked is None and record.devices < record.spec.devices:
        return want_sized(record, record.spec.devices, cordoned)
    return _want(record, cordoned)


def want_moved(record: JobRecord, cordoned: tuple[str, ...]) -> Want:
    """A running job that shall leave nodes: wherever it may be, but there."""
    base = _base(record, cordoned)
    tied = record.spec.node if record.target is None else record.target.node
    return replace(base, node=None if tied in cordoned else base.node, restores=True)


def want_of_spec(spec: JobSpec) -> Want:
    """A job that is only being submitted."""
    return Want("", spec, 0.0, node=spec.node, region=spec.region)


def want_at(record: JobRecord, node: str | None, region: str | None) -> Want:
    """A job that is to be moved there."""
    restores = record.stage is not Stage.WAITING or record.snapshot is not None
    return Want(
        record.job_id, _wanted(record), 0.0, homes=record.homes, node=node, region=region, restores=restores
    )


def want_resized(record: JobRecord, devices: int) -> Want:
    """A job that is to have this many devices, where it may be now. Nodes that are still being cleared of it
    will do: it waits for them."""
    want = replace(_base(replace(record, asked=devices)), never=())
    placed = record.placement is not None and record.intent is not Intent.MIGRATE
    return replace(want, region=record.placement.region) if placed and record.placement else want


def _want(record: JobRecord, cordoned: tuple[str, ...]) -> Want | None:
    if record.would_resize and record.placement is not None:
        return want_sized(record, record.wanted, cordoned)
    return _base(record, cordoned) if record.waits or record.would_move else None


def want_sized(record: JobRecord, devices: int, cordoned: tuple[str, ...] = ()) -> Want:
    """A running job that shall have another number of devices in its region. It may stay where it is."""
    assert record.placement is not None
    at = record.placement
    mine = {place.node for place in at.nodes}
    base = _base(record, tuple(name for name in cordoned if name not in mine))
    spec = replace(record.spec, devices=devices)
    return replace(
        base, spec=spec, region=at.region, at=at, restores=not record.in_place, still=record.in_place
    )


def _wanted(record: JobRecord) -> JobSpec:
    """The spec with the number of devices that it shall have now."""
    return replace(record.spec, devices=record.wanted)


def _base(record: JobRecord, cordoned: tuple[str, ...] = ()) -> Want:
    target = record.target
    return Want(
        job_id=record.job_id,
        spec=_wanted(record),
        queued_s=record.queued_s,
        seen=record.version,
        homes=record.homes,
        node=target.node if target else record.spec.node,
        region=target.region if target else record.spec.region,
        near=record.snapshot.region if record.snapshot else None,
        avoid=record.avoid,
        never=tuple(sorted({*record.leftovers, *cordoned})),
        restores=record.would_move or record.snapshot is not None,
        pinned=record.placement if record.stage is Stage.FROZEN else None,
    )
