"""Checkpoints: a running job is cut, every node makes its part in memory, and the same processes go on where
they stand, under the same proxies and the same epoch; the parts are stored and committed meanwhile. What is
paid is the freeze, the drain and the dump into memory.

The snapshot becomes the job's newest one; the one before it is kept, in case the newest turns out to be
damaged. When a checkpoint is due is not decided here: the service asks, by `policy/intervals.py`.
"""

from __future__ import annotations

from dataclasses import replace

from midstep.engine.draft import Draft
from midstep.engine.effects import CommitSnapshot, DeleteSnapshot
from midstep.engine.errors import Refused
from midstep.engine.events import CheckpointAsked
from midstep.engine.facets import Storing
from midstep.engine.record import Intent, JobRecord
from midstep.model.job import SnapshotRef
from midstep.model.lifecycle import Stage, Trigger
from midstep.model.phase import Failure, Fault

MOVE = "checkpoint"
_RUNNING = ("prepare", "lighten")  # in which the ranks run
_BESIDE = ("keep-cpu",)  # memory is got once
_NEW = 0.5  # how much the newest measured pause counts against those before


def possible(record: JobRecord) -> bool:
    """Whether it runs, can be dumped, and nothing else is under way with it."""
    idle = record.stage is Stage.RUNNING and record.next is None and record.intent is not Intent.SUSPEND
    return idle and record.storing is None and not record.in_place and not record.unreachable


def ask(draft: Draft, event: CheckpointAsked) -> None:
    """Cut it, if it can be. Refused: a user asked, and it cannot."""
    record = draft.record
    if not possible(record):
        if not event.due:
            raise _refusal(record)
        return
    if not event.due:
        draft.log("asked", MOVE)
    take(draft)


def take(draft: Draft) -> None:
    """Cut it: it runs, and can be dumped."""
    record = draft.record
    draft.begin_move(MOVE)
    saves = replace(record.saves, taken=record.saves.taken + 1, tried_s=draft.now_s)
    name = f"{record.job_id}-{record.epoch}.{saves.taken}"  # several are taken under one epoch
    draft.go(Trigger.CUT, pending=name, partly=False, keeps=True, saves=saves)


def keep(draft: Draft) -> None:
    """All parts are made: the processes go on."""
    record = draft.record
    assert record.pending is not None and record.move is not None
    leader = next(place.node for place in record.nodes if place.index == 0)
    storing = Storing(record.pending, record.move.started_s, record.reports[leader].store)
    draft.go(Trigger.KEPT, keeps=False, pending=None, storing=storing)


def look(draft: Draft) -> None:
    """Whether the parts of a checkpoint have reached the vault, or one of them cannot."""
    record = draft.record
    storing = record.storing
    if storing is None or storing.committing or record.stage is not Stage.RUNNING:
        return
    reports = [record.reports.get(place.node) for place in record.nodes]
    for report in reports:
        if report is not None and report.not_stored:
            give_up(draft, Failure("store", report.not_stored, Fault.NODE))
            return
    if all(report is not None and report.stored == storing.snapshot_id for report in reports):
        draft.set(storing=replace(storing, committing=True))
        draft.effects.append(commit_effect(draft.record))


def commit_effect(record: JobRecord) -> CommitSnapshot:
    """What to do about a checkpoint whose parts are all in the vault."""
    storing = record.storing
    assert storing is not None and record.placement is not None
    region, nodes = record.placement.region, len(record.placement.nodes)
    return CommitSnapshot(storing.snapshot_id, region, record.job_id, record.epoch, nodes, storing.store)


def committed(draft: Draft, snapshot: SnapshotRef) -> None:
    """It is safe: from now on it is what the job would go on from."""
    storing = draft.record.storing
    assert storing is not None
    draft.set(storing=None, cut_store=storing.store)
    rotate(draft, snapshot)
    saves, beside_s = draft.record.saves, _longest(draft.record, _BESIDE)
    beside_s = _average(saves.beside_s, beside_s)
    draft.set(saves=replace(saves, since_s=storing.cut_s, refused=0, beside_s=beside_s))
    draft.end_move(ok=True)


def give_up(draft: Draft, failure: Failure) -> None:
    """The parts cannot be stored or committed: the job runs on without this one."""
    assert draft.record.storing is not None
    draft.effects.append(DeleteSnapshot(draft.record.storing.snapshot_id))
    draft.set(storing=None)
    refused(draft, failure)


def measured(draft: Draft) -> None:
    """All run again: what it has cost."""
    record = draft.record
    assert record.move is not None
    ran_s, saves = _longest(record, _RUNNING), record.saves
    took_s = max(0.0, draft.now_s - record.move.started_s - ran_s)
    draft.set(saves=replace(saves, pause_s=_average(saves.pause_s, took_s)))


def _longest(record: JobRecord, steps: tuple[str, ...]) -> float:
    """What these took together, each where it took longest."""
    timings = [it.timing for it in record.move.steps] if record.move is not None else []
    return sum(max((it.duration_s for it in timings if it.step == step), default=0.0) for step in steps)


def _average(before: float | None, measured: float) -> float:
    return measured if before is None else (1 - _NEW) * before + _NEW * measured


def refused(draft: Draft, failure: Failure) -> None:
    """It came to nothing; the next one is tried later each time."""
    saves = draft.record.saves
    draft.log("failure", f"{failure.step}: {failure.message}; no checkpoint was taken, the job goes on")
    draft.end_move(ok=False, message=failure.message)
    draft.set(keeps=False, saves=replace(saves, refused=saves.refused + 1))


def rotate(draft: Draft, snapshot: SnapshotRef) -> None:
    """The pending snapshot is the newest now; the one before is kept, the one before that goes."""
    record = draft.record
    if record.older is not None:
        draft.effects.append(DeleteSnapshot(record.older.snapshot_id))
    draft.set(
        snapshot=snapshot, store=record.cut_store, older=record.snapshot, older_store=record.store,
        cut_store={}, pending=None,
    )  # fmt: skip


def _refusal(record: JobRecord) -> Refused:
    name = f"job {record.job_id}"
    if record.stage in (Stage.ENDING, Stage.OVER):
        return Refused("job_ended", f"{name} cannot be checkpointed: it is {record.shown}", record.shown)
    if record.in_place:
        words = f"{name} runs on a node without CRIU: it can be suspended in place, but not saved"
        return Refused(
            "cannot_checkpoint", words, record.shown, "`midstep doctor` on that node says what is missing"
        )
    if record.keeps or record.storing is not None:
        hint = "nothing was done"
        return Refused(
            "is_checkpointing", f"a checkpoint of {name} is being taken already", record.shown, hint
        )
    if record.unreachable:
        words = f"{name} is on nodes that are not connected: {', '.join(record.unreachable)}"
        return Refused("not_running", words, record.shown)
    return Refused(
        "not_running", f"{name} is {record.shown}", record.shown, "only a running job can be saved"
    )
