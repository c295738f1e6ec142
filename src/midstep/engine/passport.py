"""What one controller gives another one of a job: enough to go on with it, as if it had always been there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midstep.engine.record import Intent, JobRecord, Move
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
    runs: bool
    why: str
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


def passport_of(record: JobRecord, region: str) -> Passport:
    """Of a job that was handed over by ``region``. Where its user wanted it to be is not where it goes: that
    wish is over."""
    parting = record.parting
    assert parting is not None and parting.handed, "only what was handed over has a passport"
    spec = replace(record.spec, node=None, region=parting.region if record.spec.region else None)
    return Passport(
        job_id=record.job_id,
        hops=record.hops,
        came_from=region,
        to=parting.region,
        since_s=parting.since_s,
        runs=parting.runs,
        why=parting.why,
        spec=spec,
        submitted_s=record.submitted_s,
        epoch=record.epoch,
        homes=record.homes,
        asked=record.asked,
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
        intent=Intent.RUN if passport.runs else Intent.SUSPEND,
        version=version,
        epoch=passport.epoch,
        hops=passport.hops,
        homes=passport.homes,
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


