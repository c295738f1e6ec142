"""What one controller gives another one of a job: enough to go on with it, as if it had always been there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midstep.engine.facets import Parting
from midstep.engine.record import JobRecord, Move, Target
from midstep.model.job import JobSpec, SnapshotRef


@dataclass(frozen=True, slots=True)
class Passport:
    """A job that stands still. ``hops``: how often it was handed over, this time included: of two passports
    of a job the one with more holds. ``snapshot`` and ``older`` stay where they are until others take their
    place. ``since_s``: when it was asked to leave."""

    job_id: str
    hops: int
    came_from: str
    to: str
    since_s: float
    why: str
    node: str | None
    spec: JobSpec
    submitted_s: float
    epoch: int
    homes: tuple[tuple[int, ...], ...] = ()
    asked: int | None = None
    given: int | None = None
    carries: bool = False
    snapshot: SnapshotRef | None = None
    older: SnapshotRef | None = None
    store: dict[str, str] = field(default_factory=dict[str, str])
    older_store: dict[str, str] = field(default_factory=dict[str, str])
    retried: int = 0
    losses: int = 0
    exposed_s: float = 0.0
    started_s: float | None = None
    moves: tuple[Move, ...] = ()


def passport_of(record: JobRecord, region: str, parting: Parting) -> Passport:
    """Of a job that ``region`` hands over. Where its user wanted it to be is not where it goes: that wish is
    over."""
    spec = replace(record.spec, node=None, region=parting.region if record.spec.region else None)
    return Passport(
        job_id=record.job_id,
        hops=record.hops,
        came_from=region,
        to=parting.region,
        since_s=parting.since_s,
        why=parting.why,
        node=parting.node,
        spec=spec,
        submitted_s=record.submitted_s,
        epoch=record.epoch,
        homes=record.homes,
        asked=record.asked if parting.devices is None else parting.devices,
        given=record.given,
        carries=record.carries,
        snapshot=record.snapshot,
        older=record.older,
        store=record.store,
        older_store=record.older_store,
        retried=record.retried,
        losses=record.losses,
        exposed_s=record.exposed_s,
        started_s=record.started_s,
        moves=record.moves,
    )


def record_of(passport: Passport, move: Move | None, version: int, now_s: float) -> JobRecord:
    """The job as the controller that takes it begins with it. ``move``: on its way, until it runs."""
    return JobRecord(
        passport.job_id,
        passport.spec,
        submitted_s=passport.submitted_s,
        queued_s=now_s,
        version=version,
        epoch=passport.epoch,
        hops=passport.hops,
        homes=passport.homes,
        target=_target(passport),
        asked=passport.asked,
        given=passport.given,
        carries=passport.carries,
        snapshot=passport.snapshot,
        older=passport.older,
        store=passport.store,
        older_store=passport.older_store,
        retried=passport.retried,
        losses=passport.losses,
        exposed_s=passport.exposed_s,
        started_s=passport.started_s,
        move=move,
        moves=passport.moves,
    )


def _target(passport: Passport) -> Target | None:
    """Its user's word on where it goes: until it runs there nobody sends it elsewhere."""
    if passport.node is not None:
        return Target(node=passport.node)
    return None if passport.why else Target(region=passport.to)
