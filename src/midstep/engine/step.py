"""The one door into the engine: `step(record, event, now_s) -> Stepped`.

An event changes what is known or wanted (here); then the record is settled: it goes as far along the table as
what is known allows (`settle.py`). Nothing here performs anything, reads a clock or draws a number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from midstep.engine import ahead, asks, checkpoints, leaving, parting, ways
from midstep.engine.deadlines import deadline_at_s
from midstep.engine.draft import Draft
from midstep.engine.effects import DeleteSnapshot, Effect, Log
from midstep.engine.events import (
    Arrived,
    CancelAsked,
    CheckpointAsked,
    ControllerRestarted,
    Copied,
    DeadlinePassed,
    Event,
    Freed,
    HandedOver,
    LeaveAsked,
    MigrateAsked,
    NodeBack,
    NodeGone,
    NodeLost,
    NodeReported,
    NotNeeded,
    NotPlaced,
    Placed,
    Preempted,
    ResizeAsked,
    ResumeAsked,
    SnapshotCommitted,
    SnapshotCopied,
    SnapshotFailed,
    Submitted,
    SuspendAsked,
    TurnedBack,
)
from midstep.engine.facets import NodeStep
from midstep.engine.record import JobRecord, Leftover
from midstep.engine.settle import overdue, settle
from midstep.model.job import NodePlace
from midstep.model.lifecycle import Stage, Trigger
from midstep.model.phase import Failure, Phase, StepTiming


@dataclass(frozen=True, slots=True)
class Stepped:
    """The record after an event, and what to do. ``changed`` False: the event told nothing new."""

    record: JobRecord
    effects: tuple[Effect, ...]
    changed: bool


def step(record: JobRecord | None, event: Event, now_s: float) -> Stepped:
    """Apply one event. Raises Refused (nothing changed; tell who asked) and IllegalMove (our mistake)."""
    if isinstance(event, Submitted):
        new = JobRecord(event.job_id, event.spec, submitted_s=now_s, queued_s=now_s, version=1)
        words = " ".join(event.spec.command)
        if (origin := event.origin) is not None:
            new = replace(
                new, snapshot=origin.snapshot, store=origin.store, homes=origin.homes, epoch=origin.epoch
            )
            words = f"{words}, from snapshot {origin.snapshot.snapshot_id}"
        return Stepped(new, (Log("submitted", words),), changed=True)
    if isinstance(event, Arrived):
        taken, effects = parting.arrive(record, event.passport, now_s)
        return Stepped(taken, effects, changed=taken is not record)
    assert record is not None, f"{event} of a job that was never submitted"
    draft = Draft(record, now_s)
    _apply(draft, event)
    settle(draft)
    ahead.tidy(draft)
    parting.tidy(draft)
    if draft.record == record:
        return Stepped(record, tuple(draft.effects), changed=False)
    if draft.record.shown is not record.shown:
        draft.log("state", f"{record.shown} -> {draft.record.shown}")
    return Stepped(replace(draft.record, version=record.version + 1), tuple(draft.effects), changed=True)


def _apply(draft: Draft, event: Event) -> None:
    match event:
        case SuspendAsked():
            asks.suspend(draft)
        case ResumeAsked():
            asks.resume(draft)
        case MigrateAsked():
            asks.migrate(draft, event)
        case ResizeAsked():
            asks.resize(draft, event)
        case LeaveAsked():
            parting.ask(draft, event)
        case Copied():
            parting.copied(draft, event)
        case HandedOver():
            parting.hand_over(draft)
        case TurnedBack():
            parting.turn_back(draft, event)
        case NotNeeded(hops):
            parting.forget(draft, hops)
        case CancelAsked():
            asks.cancel(draft)
        case Freed():
            asks.free(draft)
        case Preempted():
            ways.preempt(draft, event)
        case Placed():
            ways.take_placement(draft, event)
        case NotPlaced(reason):
            if reason != draft.record.waiting:
                draft.set(waiting=reason)
                draft.log("waiting", reason)
        case NodeReported():
            _reported(draft, event)
        case NodeLost(node):
            _lost(draft, node)
        case NodeBack(node):
            _back(draft, node)
        case NodeGone(node):
            _gone_for_good(draft, node)
        case SnapshotCopied(node, status):
            ahead.heard(draft, node, status)
        case CheckpointAsked():
            checkpoints.ask(draft, event)
        case SnapshotCommitted() | SnapshotFailed():
            _snapshot(draft, event)
        case DeadlinePassed():
            if draft.record.deadline_s is not None and draft.now_s >= draft.record.deadline_s:
                overdue(draft)
        case ControllerRestarted():
            _restarted(draft)
        case Submitted() | Arrived():
            raise AssertionError("a new job is no change of one")


def _reported(draft: Draft, event: NodeReported) -> None:
    record, node, report = draft.record, event.node, event.report
    if report.epoch > record.epoch:
        draft.log(
            "node", f"reports epoch {report.epoch}, which was never given (now {record.epoch}): ignored", node
        )
        return
    if node in record.leftovers:
        if report.phase is Phase.GONE and report.epoch >= record.leftovers[node].epoch:
            draft.set(leftovers={name: left for name, left in record.leftovers.items() if name != node})
        return
    if any(place.node == node for place in record.parked):
        return
    if any(place.node == node for place in record.nodes):
        if report.epoch == record.epoch and report != record.reports.get(node):
            draft.take_report(node, report)
            leaving.hurry(draft)
        return
    if report.phase is not Phase.GONE:
        stray = Leftover(NodePlace(node, 0, ()), report.epoch)
        draft.set(leftovers={**record.leftovers, node: stray})
        draft.log("node", "still has something of this job, which is not wanted there: it is removed", node)


def _lost(draft: Draft, node: str) -> None:
    if node not in draft.record.lost:
        draft.set(lost={**draft.record.lost, node: draft.now_s})
        draft.log("node", "is not connected", node)
        leaving.hurry(draft)
        _give_back(draft, node)


def _give_back(draft: Draft, node: str) -> None:
    """Nothing goes to a node that is lost, as long as it runs somewhere: devices are looked for anew."""
    record, there = draft.record, draft.record.next
    if there is not None and node in leaving.nodes_of(there) and record.stays_put:
        draft.log("node", "had devices reserved for it: given back, it runs on where it is", node)
        draft.set(next=None)


def _back(draft: Draft, node: str) -> None:
    record = draft.record
    if node in record.lost:
        lost = {name: since_s for name, since_s in record.lost.items() if name != node}
        given_up = tuple(name for name in record.given_up if name != node)
        draft.set(lost=lost, given_up=given_up, deadline_s=deadline_at_s(record.stage, draft.now_s))
        draft.log("node", "is connected again", node)


def _gone_for_good(draft: Draft, node: str) -> None:
    record = draft.record
    if node in record.lost and node not in record.given_up:
        silent_s = draft.now_s - record.lost[node]
        draft.set(given_up=(*record.given_up, node))
        draft.log("node", f"has not been connected for {silent_s:.0f} s: given up", node)


def _snapshot(draft: Draft, event: SnapshotCommitted | SnapshotFailed) -> None:
    record = draft.record
    snapshot_id = event.snapshot.snapshot_id if isinstance(event, SnapshotCommitted) else event.snapshot_id
    storing = record.storing is not None and record.storing.snapshot_id == snapshot_id
    if storing and isinstance(event, SnapshotFailed):
        checkpoints.give_up(draft, Failure("commit", event.message, event.fault))
        return
    if storing and isinstance(event, SnapshotCommitted):
        _say_safe(draft, event)
        checkpoints.committed(draft, event.snapshot)
        return
    if record.stage is not Stage.COMMITTING or snapshot_id != record.pending:
        kept = [ref.snapshot_id for ref in (record.snapshot, record.older, record.part) if ref is not None]
        if snapshot_id not in (record.pending, *kept):
            draft.effects.append(DeleteSnapshot(snapshot_id))  # given up meanwhile
        return
    if isinstance(event, SnapshotFailed):
        ways.roll_back(draft, Failure("commit", event.message, event.fault))
        return
    _say_safe(draft, event)
    if record.partly:
        ways.switch(draft, event.snapshot)
        return
    checkpoints.rotate(draft, event.snapshot)
    draft.leave(Trigger.COMMITTED, ran=False)


def _say_safe(draft: Draft, event: SnapshotCommitted) -> None:
    snapshot, took_s = event.snapshot, event.duration_s
    draft.add_step(NodeStep("", StepTiming("commit", took_s, snapshot.nbytes)))
    draft.change_move(nbytes=snapshot.nbytes)
    draft.effects.append(Log("snapshot", f"{snapshot.snapshot_id} is safe", "", took_s, snapshot.nbytes))


def _restarted(draft: Draft) -> None:
    record = draft.record
    nodes = {place.node for place in record.nodes} | set(record.leftovers)
    # From now on: an agent that finds no controller trusts that the next one counts from its own start.
    lost = dict.fromkeys(sorted(nodes), draft.now_s)
    draft.set(lost=lost, deadline_s=deadline_at_s(record.stage, draft.now_s))
    if record.stage is Stage.COMMITTING:
        draft.effects.append(ways.commit_effect(record))
    if record.storing is not None and record.storing.committing:
        draft.effects.append(checkpoints.commit_effect(record))
