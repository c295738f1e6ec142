"""Warm starts: a new job that begins in the middle of another one, from a snapshot of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from midstep.control.admission import check_numbers, check_possible, standing
from midstep.control.errors import Rejected, invalid
from midstep.control.fleet import Fleet
from midstep.control.lookup import find
from midstep.control.sizes import check_part, sized, type_of
from midstep.control.vaults.described import found_in_vaults, manifest_in
from midstep.control.vaults.snapshots import Vaults
from midstep.engine.events import Origin
from midstep.engine.record import JobRecord
from midstep.model.job import JobSpec, SnapshotRef
from midstep.model.lifecycle import Stage
from midstep.model.tiers import Tier
from midstep.policy.picture import Want
from midstep.vault.errors import SnapshotMissing, VaultError
from midstep.wire.api import JobRequest

_OF_THE_SNAPSHOT = "a job that starts from a snapshot goes on as it was, with the snapshot's own"
_HINT = "leave it out, or submit a new job without a snapshot"


@dataclass(frozen=True, slots=True)
class Fork:
    """What is submitted."""

    spec: JobSpec
    origin: Origin


def fork(request: JobRequest, records: Mapping[str, JobRecord], vaults: Vaults, fleet: Fleet) -> Fork:
    """Of a request with `from_snapshot`; Rejected. Blocks: reads the snapshot's manifest."""
    assert request.from_snapshot is not None
    _refuse_changes(request)
    source = _source(request.from_snapshot, records, vaults)
    ref = source.ref
    world = source.spec.world_size
    if request.ranks not in (None, world):
        detail = f"{ref.snapshot_id} is of a job of {world} ranks, and its world size cannot change"
        raise invalid("ranks", detail, f"leave it out; --devices may be 1 to {world}: ranks share them")
    whole, milli = sized(request.devices)
    devices = whole or min(world, source.spec.devices)
    milli = source.spec.milli if whole is None else milli
    check_numbers(request, world, devices)
    check_part(milli, world)
    if devices > max(world, source.spec.devices):
        detail = f"{devices} devices for {world} ranks"
        raise invalid(
            "devices", detail, f"give 1 to {world}: the ranks of a snapshot stay as many as they are"
        )
    spec = replace(
        source.spec,
        name=request.name or source.name,
        devices=devices,
        tier=request.tier or Tier.STANDARD,
        kind=request.kind,
        device_type=type_of(milli, request.device_type, fleet),
        region=request.region,
        node=request.node,
        retries=request.retries,
        checkpoints=request.checkpoints,
        milli=milli,
        **standing(request, world, devices),
    )
    want = Want("", spec, 0.0, homes=source.homes, node=spec.node, region=spec.region, restores=True)
    check_possible(want, fleet)
    return Fork(spec, Origin(ref, source.store, source.homes, source.epoch))


def refs(record: JobRecord) -> tuple[SnapshotRef, ...]:
    """Its complete snapshots, the newest first."""
    return tuple(ref for ref in (record.snapshot, record.older) if ref is not None)


def needed_by_others(records: Iterable[JobRecord], job_id: str, snapshot_id: str) -> bool:
    """Whether a job other than this one would go on from a snapshot."""
    others = (record for record in records if record.job_id != job_id and record.stage is not Stage.OVER)
    return any(snapshot_id == ref.snapshot_id for record in others for ref in refs(record))


def _refuse_changes(request: JobRequest) -> None:
    given = (("command", request.command), ("env", request.env), ("workdir_blob", request.workdir_blob))
    for name, value in given:
        if value:
            raise invalid(name, f"{_OF_THE_SNAPSHOT} {name.removesuffix('_blob')}", _HINT)
    if request.threads != 1:
        raise invalid("threads", f"{_OF_THE_SNAPSHOT} number of threads", _HINT)


@dataclass(frozen=True, slots=True)
class _Source:
    """A snapshot and how its job was started. ``name``: that the new job has if it is given none."""

    ref: SnapshotRef
    spec: JobSpec
    homes: tuple[tuple[int, ...], ...]
    epoch: int
    store: dict[str, str]
    name: str = ""


def _source(asked: str, records: Mapping[str, JobRecord], vaults: Vaults) -> _Source:
    """By a snapshot's id, or a job's newest one. What no record names (an older snapshot, or one of a fleet
    that is no more) is used as it says itself; a job that nobody knows goes on under its name."""
    try:
        record, ref = _snapshot(asked, records)
    except Rejected as error:
        missing = error.problem.code in ("no_such_job", "no_such_snapshot")
        found = found_in_vaults(asked, vaults) if missing else None
        if found is None:
            raise
        job, ref, manifest = found
        spec = replace(job.spec, workdir_blob=None)
        name = "" if manifest.job_id in records else spec.name
        return _Source(ref, spec, job.homes, manifest.epoch, manifest.store, name)
    if record.in_place:
        words = f"job {record.job_id} was only stopped in place; nothing else can start from that"
        raise Rejected(409, "no_snapshot", words)
    return _Source(ref, record.spec, record.homes, record.epoch, _store(ref, vaults))


def _snapshot(asked: str, records: Mapping[str, JobRecord]) -> tuple[JobRecord, SnapshotRef]:
    """By a snapshot's id, or a job's newest one; with the record that knows how it was started."""
    for record in records.values():
        for ref in refs(record):
            if ref.snapshot_id == asked:
                return record, ref
    if asked not in records and asked.rpartition("-")[0] in records:
        hint = "`midstep vault ls` lists the snapshots; the two newest of a job are kept, until it has ended"
        raise Rejected(404, "no_such_snapshot", f"there is no snapshot {asked}", "", hint)
    record = find(records, asked)
    if record.snapshot is not None:
        return record, record.snapshot
    hint = "`midstep checkpoint` takes one of a running job"
    if record.stage is Stage.OVER:
        hint = "the snapshots of a job go when it has ended"
    raise Rejected(409, "no_snapshot", f"job {record.job_id} has no snapshot", f"it is {record.shown}", hint)


def _store(ref: SnapshotRef, vaults: Vaults) -> dict[str, str]:
    """What the rendezvous store held at the cut."""
    try:
        manifest = manifest_in(vaults.vault(ref.region), ref.snapshot_id)
        if manifest is None:
            raise SnapshotMissing(f"snapshot {ref.snapshot_id} is not in region {ref.region} any more")
        return manifest.store
    except VaultError as error:
        raise Rejected(409, "no_snapshot", f"snapshot {ref.snapshot_id} cannot be used", str(error)) from None
