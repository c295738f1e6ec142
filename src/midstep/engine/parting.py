"""A job goes on under another region's controller: it is cut, waits, and is handed over with its passport;
there it arrives and queues. In between nobody has it, and only one at a time may ever: who gives it away does
so for good, unless the other one has refused it for good.

What is left here of it (its snapshots, which the other controller reads) stays until nobody needs it.
"""

from __future__ import annotations

from dataclasses import replace

from midstep.engine import asks, leaving
from midstep.engine.draft import Draft, sized
from midstep.engine.effects import DeleteSnapshot, Effect, Log
from midstep.engine.errors import Refused
from midstep.engine.events import Copied, LeaveAsked, TurnedBack
from midstep.engine.facets import Parting
from midstep.engine.passport import Passport, record_of
from midstep.engine.record import Intent, JobRecord, Move
from midstep.model.job import SnapshotRef
from midstep.model.lifecycle import JobState, Stage, Trigger

MOVE = "migrate"


def ask(draft: Draft, event: LeaveAsked) -> None:
    """It shall go, as soon as it can be cut, or when enough of it was copied."""
    record = draft.record
    asks.refuse_away(record)
    if record.stage in (Stage.ENDING, Stage.OVER):
        message = f"job {record.job_id} cannot be migrated: it is {record.shown}"
        raise Refused("job_ended", message, record.shown)
    if record.in_place and record.placement is not None:
        message = f"job {record.job_id} runs on a node without CRIU: it cannot be moved"
        hint = "`midstep doctor` on that node says what is missing"
        raise Refused("cannot_move", message, record.shown, hint)
    if record.parting is not None or record.next is not None or record.back is not None:
        hint = "`midstep resume` calls its migration off"
        raise Refused("is_migrating", f"job {record.job_id} is on its way already", record.shown, hint)
    goes_on = event.ahead or not event.why
    copies = goes_on and record.intent is not Intent.SUSPEND and record.stays_put
    draft.log("scheduled" if event.why else "asked", f"go to region {event.region}{_because(event.why)}")
    where = (event.why, event.node, event.devices)
    draft.set(parting=Parting(event.region, draft.now_s, copies, event.ahead, False, *where))
    if not copies:
        _stand_still(draft)


def copied(draft: Draft, event: Copied) -> None:
    """It may stand still now; what it is cut into is little more than what was copied."""
    parting = draft.record.parting
    if parting is None or not parting.copies:
        return
    if event.rounds:
        words = f"copied ahead {event.rounds} times, {sized(event.nbytes)} in all"
        draft.log("copy-ahead", words, "", draft.now_s - parting.since_s, event.nbytes)
        move = Move("copy-ahead", parting.since_s, draft.now_s, event.nbytes, ok=not event.message)
        draft.add_move(replace(move, message=event.message))
    elif event.message:
        draft.log("copy-ahead", f"was given up: {event.message}; the job goes without")
    draft.set(parting=replace(parting, copies=False, since_s=draft.now_s))
    _stand_still(draft)


def hand_over(draft: Draft) -> None:
    """From now on another one decides. Raises Refused: it is not ready."""
    record = draft.record
    if record.away:
        return
    if not ready(record):
        words = f"job {record.job_id} cannot be handed over: it is {record.shown}"
        raise Refused("not_ready", words, record.shown)
    assert record.parting is not None
    draft.set(parting=replace(record.parting, handed=True), hops=record.hops + 1, waiting="")
    draft.log("handed-over", f"handed over to the controller of region {record.parting.region}")


def ready(record: JobRecord) -> bool:
    """It shall go, and nothing of it runs."""
    parting = record.parting
    return parting is not None and not parting.copies and record.stage is Stage.WAITING


def turn_back(draft: Draft, event: TurnedBack) -> None:
    """The other one has refused it, for good. Said late, of an earlier passport: nothing."""
    record = draft.record
    if not record.away or record.stage is Stage.OVER or record.hops != event.hops:
        return
    assert record.parting is not None
    parting, why = record.parting, event.why
    draft.log("failure", f"region {parting.region} does not take it: {why}")
    draft.add_move(Move(MOVE, parting.since_s, draft.now_s, ok=False, message=why))
    draft.set(parting=None, intent=Intent.RUN)


def arrive(
    record: JobRecord | None, passport: Passport, now_s: float
) -> tuple[JobRecord, tuple[Effect, ...]]:
    """A job that another one gave away. Again: nothing. Raises Refused: there is another job of that id."""
    if record is not None and record.hops >= passport.hops:
        return record, ()
    if record is not None and not record.away:
        message = f"there is another job {record.job_id} here"
        raise Refused("is_here", message, record.shown)
    snapshot = passport.snapshot
    move = Move(MOVE, passport.since_s, nbytes=snapshot.nbytes) if snapshot is not None else None
    version = record.version + 1 if record is not None else 1
    taken = record_of(passport, move, version, now_s)
    words = f"arrived from region {passport.came_from}{_because(passport.why)}"
    effects: list[Effect] = [Log("arrived", words)]
    if record is not None:
        taken = replace(taken, leftovers=record.leftovers)  # they have still to be confirmed to be gone
        kept = {ref.snapshot_id for ref in _refs(taken)}
        effects += [DeleteSnapshot(ref.snapshot_id) for ref in _refs(record) if ref.snapshot_id not in kept]
    return taken, tuple(effects)


def forget(draft: Draft, hops: int) -> None:
    """Nobody reads any more of what is left here. Said late, of an earlier time: nothing."""
    record = draft.record
    if record.away and record.hops == hops and record.stage is not Stage.OVER:
        draft.set(outcome=JobState.CANCELLED)
        draft.go(Trigger.ENDED)
        leaving.over(draft)


def tidy(draft: Draft) -> None:
    """It ended, or was called off: it goes nowhere."""
    record = draft.record
    if record.parting is None or record.away:
        return
    stays = record.intent is not Intent.SUSPEND and not record.parting.copies
    if stays or record.stage in (Stage.ENDING, Stage.OVER):
        draft.set(parting=None)


def _stand_still(draft: Draft) -> None:
    record = draft.record
    # A resize whose ranks are on their way comes to its end first: half of it cannot be restored.
    kept = record.next if record.partly else None
    draft.set(intent=Intent.SUSPEND, next=kept, target=None, ahead=None, attempts=0, waiting="")
    if record.stage is Stage.WAITING:  # a recovery that waits for devices
        draft.end_move(ok=False, message="it goes to another region")


def _refs(record: JobRecord) -> list[SnapshotRef]:
    return [ref for ref in (record.snapshot, record.older) if ref is not None]


def _because(why: str) -> str:
    return f": {why}" if why else ""
