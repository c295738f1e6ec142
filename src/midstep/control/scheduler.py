"""What the policy is shown of the jobs and nodes, and which jobs want devices. Pure; the service applies the
plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from midstep.engine.check import users_of_devices
from midstep.engine.record import Intent, JobRecord
from midstep.model.fleet import NodeStatus
from midstep.model.job import JobSpec
from midstep.model.lifecycle import Stage
from midstep.policy.picture import Picture, Want


def picture(records: Iterable[JobRecord], nodes: Mapping[str, NodeStatus]) -> Picture:
    """The fleet as it is now."""
    statuses = [status for _, status in sorted(nodes.items())]
    return Picture(
        nodes=tuple(status.node for status in statuses if status.connected),
        used={key: users[0] for key, users in users_of_devices(records).items()},
        down=tuple(status.node for status in statuses if not status.connected),
    )


def wants(records: Iterable[JobRecord]) -> list[Want]:
    """The jobs that want devices now: those that wait, those that shall migrate and have nothing reserved
    yet, and those that shall have more or fewer."""
    return [want for record in records if (want := _want(record)) is not None]


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


def _want(record: JobRecord) -> Want | None:
    if record.would_resize and record.placement is not None:
        at = record.placement
        restores = not record.in_place
        return replace(_base(record), region=at.region, at=at, restores=restores, still=record.in_place)
    return _base(record) if record.waits or record.would_move else None


def _wanted(record: JobRecord) -> JobSpec:
    """The spec with the number of devices that it shall have now."""
    return replace(record.spec, devices=record.wanted)


def _base(record: JobRecord) -> Want:
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
        never=tuple(sorted(record.leftovers)),
        restores=record.would_move or record.snapshot is not None,
        pinned=record.placement if record.stage is Stage.FROZEN else None,
    )
