"""What a user may ask of a job, and when it is refused."""

from __future__ import annotations

from midstep.engine import leaving
from midstep.engine.draft import Draft
from midstep.engine.errors import Refused
from midstep.engine.events import MigrateAsked, ResizeAsked
from midstep.engine.facets import Ahead
from midstep.engine.record import Intent, JobRecord, Target
from midstep.model.lifecycle import JobState, Stage


def suspend(draft: Draft) -> None:
    """Free the job's devices as soon as it can be cut; a queued job is set aside."""
    record = _living(draft.record, "suspended")
    if record.parts and record.intent is Intent.SUSPEND:
        draft.set(parting=None)  # it was only on its way: now it stays suspended, here
        draft.log("asked", "suspend")
        return
    if record.intent is Intent.SUSPEND:
        raise Refused("already_suspended", f"job {record.job_id} is {record.shown} already", record.shown)
    # A resize whose ranks are on their way comes to its end first: half of it cannot be resumed.
    kept = record.next if record.partly else None
    draft.set(intent=Intent.SUSPEND, next=kept, target=None, attempts=0, waiting="", parting=None)
    if record.stage is Stage.WAITING:  # a recovery that waits for devices
        draft.end_move(ok=False, message="it was suspended")
    draft.log("asked", "suspend")


def resume(draft: Draft) -> None:
    """Go on: a suspended job queues for devices, one being suspended does so afterwards, a migration that
    still waits for devices, or is copied ahead, is called off."""
    record = _living(draft.record, "resumed")
    calls_off = record.intent is Intent.MIGRATE and record.next is None
    calls_off |= record.stage is Stage.WAITING and record.target is not None
    copies = record.ahead is not None and record.stage is Stage.RUNNING
    calls_off |= copies or record.parting is not None
    if record.intent is not Intent.SUSPEND and not calls_off:
        hint = "only a suspended job can be resumed"
        raise Refused("not_suspended", f"job {record.job_id} is {record.shown}", record.shown, hint)
    _want_run(draft)
    if copies:
        draft.set(next=None)
    draft.log("asked", "resume")


def migrate(draft: Draft, event: MigrateAsked) -> None:
    """Go on elsewhere: a running job is moved when devices are reserved there, any other queues for devices
    there."""
    record = _living(draft.record, "migrated")
    if record.in_place and record.placement is not None:
        message = (
            f"job {record.job_id} runs on a node without CRIU: it can be suspended in place, but not moved"
        )
        raise Refused(
            "cannot_move", message, record.shown, "`midstep doctor` on that node says what is missing"
        )
    if record.parting is not None:
        words = f"job {record.job_id} is on its way to region {record.parting.region} already"
        raise Refused("is_migrating", words, record.shown, "`midstep resume` calls its migration off")
    target = Target(event.node, event.region)
    if _settled_at(record, target):
        hint = "`midstep resume` calls its migration off" if record.intent is Intent.MIGRATE else ""
        raise Refused("already_there", f"job {record.job_id} is at {target} already", record.shown, hint)
    if record.next is not None or record.back is not None:
        hint = "wait until it is there, or suspend it first"
        what = "resized" if record.partly else "migrated"
        raise Refused("is_migrating", f"job {record.job_id} is being {what} already", record.shown, hint)
    draft.log("asked", f"migrate to {target}")
    draft.set(ahead=Ahead(draft.now_s) if event.ahead else None)
    if record.stage in (Stage.HOLDING, Stage.JOINING, Stage.RUNNING) or record.keeps:
        draft.set(intent=Intent.MIGRATE, target=target, attempts=0, waiting="", yields=False)
    else:
        _want_run(draft)
        draft.set(target=target)


def resize(draft: Draft, event: ResizeAsked) -> None:
    """Have more or fewer devices from now on: at once if it runs, after what is under way (the last wish
    holds), at its next start if it has none."""
    record = _living(draft.record, "resized")
    if event.node is not None or event.region is not None:
        draft.set(asked=event.devices)
        migrate(draft, MigrateAsked(event.node, event.region, ahead=True))
        return
    has = record.next.devices if record.next else record.devices
    chosen = record.given is not None and record.asked is None  # by the scheduler: it stays so from now on
    if not chosen and event.devices == record.wanted and (record.placement is None or has == event.devices):
        verb = "has" if record.placement is not None else "shall have"
        words = f"job {record.job_id} {verb} {event.devices} device{'s' if event.devices > 1 else ''} already"
        raise Refused("already_that_size", words, record.shown, "nothing was done")
    draft.log("asked", f"resize to {event.devices}")
    draft.set(asked=event.devices, attempts=0, waiting="")


def free(draft: Draft) -> None:
    """Let the scheduler choose the number of its devices again."""
    record = _living(draft.record, "resized")
    if record.asked is None:
        words = f"the number of devices of job {record.job_id} is the scheduler's choice already"
        raise Refused("already_free", words, record.shown, "nothing was done")
    draft.log("asked", "resize as the scheduler sees fit")
    draft.set(asked=None, given=record.wanted, waiting="")


def cancel(draft: Draft) -> None:
    """Stop the job for good. A job that is ending already ends as it would have."""
    record = draft.record
    refuse_away(record)
    if record.stage is Stage.OVER:
        raise Refused("job_ended", f"job {record.job_id} has ended: it is {record.shown}", record.shown)
    if record.stage is Stage.ENDING:
        return
    draft.log("asked", "cancel")
    draft.set(intent=Intent.CANCEL)
    leaving.end(draft, JobState.CANCELLED)


def refuse_away(record: JobRecord) -> None:
    """Raises Refused: another controller has the job."""
    if record.away:
        words = f"job {record.job_id} is in region {record.away} now"
        hint = "ask the fleet's global controller, or that region's"
        raise Refused("is_elsewhere", words, record.shown, hint)


def _living(record: JobRecord, participle: str) -> JobRecord:
    refuse_away(record)
    if record.stage in (Stage.ENDING, Stage.OVER):
        message = f"job {record.job_id} cannot be {participle}: it is {record.shown}"
        raise Refused("job_ended", message, record.shown)
    return record


def _want_run(draft: Draft) -> None:
    draft.set(intent=Intent.RUN, queued_s=draft.now_s, target=None, attempts=0, failure=None, waiting="")
    draft.set(parting=None)


def _settled_at(record: JobRecord, target: Target) -> bool:
    """Whether the job holds devices there and nothing else is under way (a checkpoint takes it nowhere)."""
    return record.stays_put and record.placement is not None and target.met(record.placement)
