"""How a job leaves its nodes: abandoned (it lives on in its snapshot, or starts again), released, or ended
for good."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.engine.deadlines import UNREACHABLE_S
from midstep.engine.draft import Draft
from midstep.engine.effects import DeleteSnapshot
from midstep.engine.record import Exit, Intent, JobRecord, Leftover
from midstep.model.job import NodePlace, Placement
from midstep.model.lifecycle import JobState, Stage, Trigger
from midstep.model.phase import Failure, Phase, RankStatus


def abandon(draft: Draft, failure: Failure, **changes: object) -> None:
    """Remove what is on the nodes; the job lives on in its snapshot, or starts again from nothing."""
    draft.log("failure", f"{failure.step}: {failure.message}")
    draft.set(failure=failure)
    if draft.record.move is not None and not draft.record.move.message:
        draft.change_move(message=failure.message)
    leave_parked(draft, draft.record.parked)
    drop_part(draft)
    draft.leave(Trigger.ABANDONED, **changes)


def leave_parked(draft: Draft, places: Iterable[NodePlace]) -> None:
    """What is on these nodes is not wanted any more; they are told so until they confirm that it is gone."""
    left = {place.node: Leftover(place, draft.record.epoch) for place in places}
    draft.set(leftovers={**draft.record.leftovers, **left})


def drop_part(draft: Draft) -> None:
    """The snapshot of the ranks that moved is of no use any more."""
    if draft.record.part is not None:
        draft.effects.append(DeleteSnapshot(draft.record.part.snapshot_id))
    draft.set(part=None, partly=False, cut_store={})


def give_up(draft: Draft, failure: Failure) -> None:
    """The processes are lost or cannot go on: back to the newest snapshot, if there is one, for the user to
    resume."""
    record = draft.record
    if record.snapshot is None or record.stage is Stage.COMMITTING:
        end(draft, JobState.FAILED, failure)
        return
    if record.pending is not None:
        draft.effects.append(DeleteSnapshot(record.pending))
    nowhere = dict.fromkeys(("next", "back", "target", "parting", "pending"))
    abandon(draft, failure, intent=Intent.SUSPEND, **nowhere)


def end(draft: Draft, outcome: JobState, failure: Failure | None = None, exit: Exit | None = None) -> None:
    """The job ends: save its files, remove the rest."""
    draft.end_move(ok=False, message="the job ended")
    if failure is not None:
        draft.log("failure", f"{failure.step}: {failure.message}")
    if exit is not None and exit.code != 0:
        draft.log("exit", f"rank {exit.rank} ended with {exit.code}")
    leave_parked(draft, draft.record.parked)
    drop_part(draft)
    draft.set(exits=codes_of(draft.record))
    draft.set(outcome=outcome, failure=failure, exit=exit, next=None, back=None, target=None, waiting="")
    if draft.record.placement is None:
        draft.go(Trigger.ENDED)
        over(draft)
    else:
        draft.leave(Trigger.ENDED)
        hurry(draft)


def hurry(draft: Draft) -> None:
    """Let an ending job wait no longer for nodes that cannot answer, if only those are left."""
    record = draft.record
    silent = {place.node for place in record.nodes if not gone(record, place.node)}
    if record.stage is not Stage.ENDING or record.deadline_s is None:
        return
    if silent and silent <= set(record.lost):
        draft.set(deadline_s=min(record.deadline_s, draft.now_s + UNREACHABLE_S))


def released(draft: Draft) -> None:
    """The nodes are free of it: on to the devices reserved for it, or wait."""
    record = draft.record
    if record.next is not None and not record.leftovers.keys() & nodes_of(record.next):
        came_from = record.placement if record.intent is Intent.MIGRATE else None
        draft.under_new_epoch(
            Trigger.MOVED,
            record.next,
            record.snapshot,
            next=None,
            back=came_from,
            ran=False,
            left=record.placement,
        )
        return
    migrating = record.intent is Intent.MIGRATE
    failed = record.failure is not None and record.move is not None and bool(record.move.message)
    recovers = record.move is not None and record.move.kind == "recover" and record.intent is Intent.RUN
    if not recovers:  # it has not come back yet
        draft.end_move(ok=not failed)
    intent = Intent.RUN if migrating else record.intent
    draft.go(Trigger.ALL_GONE, placement=None, left=record.placement, intent=intent, queued_s=draft.now_s)
    draft.set(reports={}, peers=(), source=None, next=None, back=None, ran=False, running_s=None, lost={})
    draft.set(given_up=(), yields=False)


def ended(draft: Draft) -> None:
    """The nodes are free of an ended job."""
    draft.go(Trigger.ALL_GONE)
    over(draft)


def over(draft: Draft) -> None:
    """Nothing of it is kept but its record."""
    record = draft.record
    kept = [ref.snapshot_id for ref in (record.snapshot, record.older) if ref is not None]
    doomed = [record.pending, *kept, *record.damaged]
    draft.effects.extend(DeleteSnapshot(snapshot_id) for snapshot_id in doomed if snapshot_id)
    left = record.placement or record.left
    draft.set(
        placement=None, left=left, reports={}, peers=(), source=None, snapshot=None, pending=None, store={}
    )
    draft.set(older=None, older_store={}, damaged=(), given_up=())
    draft.set(lost={}, ended_s=draft.now_s, running_s=None)


def leave_behind(draft: Draft) -> None:
    """Go on without the nodes that do not answer or cannot clean up; they are told to remove what they have,
    under a new epoch (an agent does not try again what failed under the one before)."""
    record = draft.record
    epoch = record.epoch + 1
    silent = {p.node: Leftover(p, epoch) for p in record.nodes if not gone(record, p.node)}
    draft.set(epoch=epoch, leftovers={**record.leftovers, **silent})
    for node in sorted(silent):
        draft.log("node", "has not confirmed that nothing of the job is left; it will be removed", node)


def gone(record: JobRecord, node: str) -> bool:
    """Whether a node confirmed that nothing of the job is left there."""
    report = record.reports.get(node)
    return node in record.leftovers or (report is not None and report.phase is Phase.GONE)


def codes_of(record: JobRecord) -> dict[int, int]:
    """Rank -> exit code, of those that have ended."""
    ranks = [rank for report in record.reports.values() for rank in report.ranks]
    return {rank.rank: rank.exit_code for rank in sorted(ranks, key=_rank) if rank.exit_code is not None}


def _rank(status: RankStatus) -> int:
    return status.rank


def stays(record: JobRecord, devices: int) -> dict[str, int]:
    """Let it have this number from now on, by whoever has the say."""
    return {"given": devices} if record.asked is None else {"asked": devices}


def nodes_of(placement: Placement) -> set[str]:
    """The names of a placement's nodes."""
    return {place.node for place in placement.nodes}
