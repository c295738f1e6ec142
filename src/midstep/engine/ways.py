"""The ways that a job can take: each a short sequence of moves with everything that belongs to it."""

from __future__ import annotations

from midstep.engine import checkpoints, parting, recovery
from midstep.engine.deadlines import ATTEMPTS
from midstep.engine.draft import Draft
from midstep.engine.effects import CommitSnapshot, DeleteSnapshot
from midstep.engine.errors import Stale
from midstep.engine.events import Placed, Preempted
from midstep.engine.leaving import abandon, end, give_up, leave_parked, nodes_of, stays
from midstep.engine.record import Intent, JobRecord
from midstep.engine.recovery import count, start_over
from midstep.model.job import Placement, SnapshotRef
from midstep.model.lifecycle import JobState, Stage, Trigger
from midstep.model.phase import Failure, Fault, Phase

# New proxies in quick succession: a proxy that dies of what the job does would be replaced for ever.
_RECONNECTS = 20


def take_placement(draft: Draft, event: Placed) -> None:
    """Use devices that the policy found: start, resume, or reserve them for a migration. Raises Stale."""
    record = draft.record
    if event.seen != record.version:
        message = f"the plan saw version {event.seen} of job {record.job_id}, which is at {record.version}"
        raise Stale("stale_plan", message, record.shown)
    moves = record.would_move or record.would_resize or (bool(event.why) and record.settled)
    if not record.waits and not moves:
        raise Stale("stale_plan", f"job {record.job_id} wants no devices: it is {record.shown}", record.shown)
    if record.leftovers.keys() & nodes_of(event.placement):
        raise Stale(
            "stale_plan", f"something of job {record.job_id} is still on one of these nodes", record.shown
        )
    if event.placement == record.placement and record.stage is not Stage.FROZEN:
        raise Stale("stale_plan", f"job {record.job_id} is there already", record.shown)
    if event.why:
        draft.log("scheduled", event.why)
    draft.log("placed", describe(event.placement))
    draft.set(carries=event.carries)
    if event.placement.devices != record.wanted:
        draft.set(**stays(record, event.placement.devices))
    if moves:
        draft.set(next=event.placement, waiting="")
    elif record.stage is Stage.FROZEN:
        draft.begin_move("resume")
        if record.pending is not None:  # what the nodes noted of the standstill
            draft.effects.append(DeleteSnapshot(record.pending))
        draft.under_new_epoch(Trigger.PLACED, event.placement, None, pending=None, waiting="")
    else:
        if record.snapshot is not None:
            if record.move is None or record.move.kind not in (recovery.MOVE, parting.MOVE):
                draft.begin_move("resume")
            draft.change_move(nbytes=record.snapshot.nbytes)
        draft.set(homes=record.homes or homes_of(event.placement), in_place=event.in_place)
        draft.under_new_epoch(Trigger.PLACED, event.placement, record.snapshot, ran=False, waiting="")


def preempt(draft: Draft, event: Preempted) -> None:
    """Free its devices for others. Raises Stale."""
    record = draft.record
    if event.seen != record.version or not record.settled:
        message = f"the plan saw version {event.seen} of job {record.job_id}, running; it is {record.shown}"
        raise Stale("stale_plan", f"{message} at version {record.version}", record.shown)
    draft.log("scheduled", event.why)
    draft.set(yields=True, attempts=0, waiting=event.why)


def describe(placement: Placement) -> str:
    """A placement in words."""
    parts = [
        f"ranks {', '.join(str(r.rank) for r in place.ranks)} on {place.node}" for place in placement.nodes
    ]
    return f"{'; '.join(parts)} ({placement.region})"


def homes_of(placement: Placement) -> tuple[tuple[int, ...], ...]:
    """Ranks by virtual host."""
    homes: dict[int, list[int]] = {}
    for place in placement.nodes:
        for rank in place.ranks:
            homes.setdefault(rank.home, []).append(rank.rank)
    return tuple(tuple(sorted(homes[home])) for home in sorted(homes))


def cut(draft: Draft) -> None:
    """Suspend, or go to the devices that are reserved."""
    record = draft.record
    partly = record.intent is Intent.RUN and not record.yields
    moves = record.next is not None and record.next.devices == record.devices
    kinds = {Intent.MIGRATE: "migrate", Intent.RUN: "migrate" if moves else "resize"}
    stands_still = "hand-over" if record.parts else "suspend"
    draft.begin_move("suspend" if record.yields else kinds.get(record.intent, stands_still))
    draft.go(Trigger.CUT, pending=f"{record.job_id}-{record.epoch}", partly=partly, keeps=False)


def resize(draft: Draft) -> None:
    """To the devices that are reserved: without a cut when no rank changes its node. A GPU must be left at a
    cut even then: what is on it has to be carried."""
    record = draft.record
    assert record.placement is not None and record.next is not None
    if record.next.homes_by_node() != record.placement.homes_by_node() or record.carries:
        cut(draft)
        return
    draft.begin_move("resize")
    draft.under_new_epoch(Trigger.RESIZED, record.next, None, next=None)


def switch(draft: Draft, part: SnapshotRef) -> None:
    """The ranks that change nodes are in the vault: there they are restored, the others are adopted. Nodes
    that are not needed any more wait, stopped, until all of it runs."""
    record = draft.record
    assert record.next is not None
    draft.under_new_epoch(
        Trigger.SWITCHED, record.next, part, next=None, back=record.placement, part=part, pending=None,
        ran=False, attempts=0,
    )  # fmt: skip


def commit(draft: Draft) -> None:
    """Every part is in the vault (or the job stands still where it cannot be dumped)."""
    record = draft.record
    if record.in_place and not record.partly:
        draft.go(Trigger.PARKED, yields=False)
        draft.end_move(ok=True, message="stopped in place: these nodes have no CRIU")
        return
    leader = next(place.node for place in record.nodes if place.index == 0)
    draft.go(Trigger.ALL_DUMPED, cut_store=record.reports[leader].store)
    draft.effects.append(commit_effect(draft.record))


def commit_effect(record: JobRecord) -> CommitSnapshot:
    """What to do about a record in COMMITTING."""
    assert record.pending is not None and record.placement is not None
    nodes = len(record.placement.nodes)
    return CommitSnapshot(
        record.pending, record.placement.region, record.job_id, record.epoch, nodes, record.cut_store
    )


def roll_back(draft: Draft, failure: Failure) -> None:
    """A dump or commit came to nothing: the processes go on where they stand. What may pass is tried
    again."""
    record = draft.record
    if record.keeps:
        checkpoints.refused(draft, failure)
    else:
        count(draft)
        again = failure.fault.passes and draft.record.attempts < ATTEMPTS
        draft.log("failure", f"{failure.step}: {failure.message}; the job goes on running")
        draft.end_move(ok=False, message=failure.message)
        if not again:
            moved = record.partly or record.intent is Intent.MIGRATE
            kept = stays(record, record.devices) if moved else {}
            draft.set(intent=Intent.RUN, next=None, target=None, yields=False, **kept)
        elif record.intent is Intent.SUSPEND:
            draft.set(next=None)
        elif _sent_away(record):  # while it was being suspended: it goes from here then
            draft.set(intent=Intent.MIGRATE)
    draft.set(failure=failure, partly=False)
    _reconnect(draft, Trigger.ROLLED_BACK)
    if record.pending is not None:
        draft.effects.append(DeleteSnapshot(record.pending))
        draft.set(pending=None)


def _sent_away(record: JobRecord) -> bool:
    target, here = record.target, record.placement
    if target is None or here is None or record.yields or record.partly:
        return False
    return record.intent is Intent.RUN and not target.met(here)


def reconnect(draft: Draft, failure: Failure) -> None:
    """Proxies were lost, or a start did not succeed with the processes intact: again, under a new epoch."""
    count(draft)
    if draft.record.attempts > (_RECONNECTS if failure.fault is Fault.TRANSIENT else ATTEMPTS):
        give_up(draft, failure)
        return
    draft.log("failure", f"{failure.step}: {failure.message}; again under a new epoch")
    _reconnect(draft, Trigger.BROKEN)


def _reconnect(draft: Draft, trigger: Trigger) -> None:
    record = draft.record
    assert record.placement is not None
    draft.drop_storing()
    if draft.record.move is None and record.started_s is not None:
        draft.begin_move("reconnect")
    # Processes that may have run since their cut must be adopted: restoring them once more would run them
    # twice.
    source = None if record.ran else record.source
    draft.under_new_epoch(trigger, record.placement, source)


def cannot_hold(draft: Draft, failure: Failure) -> None:
    """A start or a restore failed before anything ran: again in place if it may pass; else remove what is
    there, and go elsewhere, back, or be suspended."""
    count(draft)
    record = draft.record
    tries = record.attempts
    recovers = record.move is not None and record.move.kind == recovery.MOVE
    if record.part is not None:
        _cannot_switch(draft, failure)
    elif failure.fault is Fault.SNAPSHOT and record.older is not None:
        recovery.fall_back(draft, failure)
    elif failure.fault is Fault.TRANSIENT and tries < ATTEMPTS:
        draft.log("failure", f"{failure.step}: {failure.message}; again under a new epoch")
        _reconnect(draft, Trigger.BROKEN)
    elif record.source is None and (failure.fault is Fault.USER or tries >= ATTEMPTS):
        end(draft, JobState.FAILED, failure)
    elif record.back is not None and record.intent is not Intent.SUSPEND:
        draft.change_move(message=f"{failure.message}; it goes back to where it was")
        kept = stays(record, record.back.devices)
        abandon(draft, failure, next=record.back, back=None, intent=Intent.RUN, target=None, **kept)
    elif record.source is None:
        nodes = tuple(place.node for place in record.nodes if _failed(record, place.node))
        abandon(draft, failure, avoid=tuple(sorted({*record.avoid, *nodes})))
    elif recovers and record.intent is not Intent.SUSPEND and failure.fault is not Fault.SNAPSHOT:
        recovery.restore_elsewhere(draft, failure)
    elif record.hops and failure.fault is Fault.TRANSIENT and _far(record):
        abandon(draft, failure, attempts=0)  # nobody answers where its snapshot is: it tries again
    else:
        abandon(draft, failure, intent=Intent.SUSPEND, target=None)


def _far(record: JobRecord) -> bool:
    """It is restored out of another controller's vault."""
    here, source = record.placement, record.source
    return here is not None and source is not None and here.region != source.region


def _cannot_switch(draft: Draft, failure: Failure) -> None:
    """A part of the job cannot be brought to where it shall go (or, having been turned back, to where it
    was)."""
    record = draft.record
    if failure.fault is Fault.TRANSIENT and record.attempts < ATTEMPTS:
        draft.log("failure", f"{failure.step}: {failure.message}; again under a new epoch")
        _reconnect(draft, Trigger.BROKEN)
    elif record.back is not None:
        draft.log("failure", f"{failure.step}: {failure.message}; all go on where they were")
        draft.change_move(message=f"{failure.message}; it goes on where it was")
        back, unwanted = record.back, record.placement
        assert unwanted is not None
        draft.under_new_epoch(
            Trigger.TURNED_BACK, back, record.part, back=None, attempts=0, failure=failure,
            **stays(record, back.devices),
        )  # fmt: skip
        leave_parked(draft, [place for place in unwanted.nodes if place.node not in nodes_of(back)])
    else:  # those that stayed are no job without the others
        draft.set(attempts=0)
        start_over(draft, failure)


def _failed(record: JobRecord, node: str) -> bool:
    report = record.reports.get(node)
    return report is None or report.phase is Phase.FAILED
