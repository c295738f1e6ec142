"""What was lost is done again: from the newest snapshot, from the one before it, or from the beginning.

The infrastructure's faults (processes that were killed, a node that is gone) are made up for by themselves,
though not for ever: what is lost each time it runs is given up. A job that ends badly by itself is run again
only as often as it was submitted with.
"""

from __future__ import annotations

from midstep.engine.deadlines import ATTEMPTS, SETTLED_S
from midstep.engine.draft import Draft
from midstep.engine.effects import DeleteSnapshot
from midstep.engine.leaving import abandon, drop_part, end, give_up, stays
from midstep.engine.record import Exit, Intent, JobRecord
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import Failure, Fault, Phase

MOVE = "recover"
KILLED = 128 + 9  # nobody ends by SIGKILL of its own accord: from outside, or for want of memory


def count(draft: Draft) -> None:
    """One more try; those before count no more once the job has run for a while."""
    record = draft.record
    long_s = draft.now_s - record.running_s if record.running_s is not None else 0.0
    draft.set(attempts=1 if long_s >= SETTLED_S else record.attempts + 1)


def start_over(draft: Draft, failure: Failure, exit: Exit | None = None) -> None:
    """The processes were lost with their node, or killed from outside. ``exit``: of the rank that was."""
    count(draft)
    draft.set(losses=draft.record.losses + 1)
    if draft.record.attempts <= ATTEMPTS:
        _again(draft, failure, "lost")
    elif exit is not None and (draft.record.snapshot is None or draft.record.stage is Stage.COMMITTING):
        end(draft, JobState.FAILED, exit=exit)
    else:
        give_up(draft, failure)


def retry(draft: Draft, exit: Exit) -> None:
    """A rank ended badly by itself, and the job was submitted with retries."""
    record = draft.record
    number = record.retried + 1
    message = f"rank {exit.rank} ended with exit code {exit.code} (retry {number} of {record.spec.retries})"
    draft.set(retried=number)
    _again(draft, Failure("run", message, Fault.USER, intact=False), "exit")


def gone_for_good(record: JobRecord) -> list[str]:
    """The nodes that it needs and that were given up. One whose part of the cut is in the vault is not
    needed any more."""
    needed = [place.node for place in record.nodes if place.node in record.given_up]
    if record.stage is not Stage.DUMPING:
        return needed
    return [node for node in needed if not record.dumped(node)]


def lose_nodes(draft: Draft, nodes: list[str]) -> None:
    """What ran there is lost; what was only being brought there is brought elsewhere."""
    record = draft.record
    message = (
        f"{', '.join(nodes)} did not answer for too long and {'is' if len(nodes) == 1 else 'are'} given up"
    )
    failure = Failure("run", message, Fault.NODE, intact=False)
    back = record.back if record.part is None and record.intent is not Intent.SUSPEND else None
    if back is not None:  # it was sent there, and need not wait until they are there again
        draft.set(target=None)
    if record.stage is Stage.HOLDING and not record.ran and back is not None:
        draft.change_move(message=f"{message}; it goes back to where it was")
        abandon(draft, failure, next=back, back=None, intent=Intent.RUN, **stays(record, back.devices))
    elif record.stage is Stage.HOLDING and not record.ran:
        intent = Intent.SUSPEND if record.intent is Intent.SUSPEND else Intent.RUN
        abandon(draft, failure, intent=intent, next=None, back=None)
    else:
        start_over(draft, failure)


def fall_back(draft: Draft, failure: Failure) -> None:
    """The newest snapshot is damaged: go on from the one before it. The damaged one is kept until the job
    ends, for whoever wants to know what happened to it."""
    record = draft.record
    assert record.snapshot is not None and record.older is not None
    bad, older = record.snapshot, record.older
    draft.log("lost", f"snapshot {bad.snapshot_id} cannot be used: it goes on from {older.snapshot_id}")
    intent = Intent.SUSPEND if record.intent is Intent.SUSPEND else Intent.RUN
    abandon(
        draft, failure, intent=intent, next=None, back=None, snapshot=older, store=record.older_store,
        older=None, older_store={}, damaged=(*record.damaged, bad.snapshot_id), attempts=0,
    )  # fmt: skip


def restore_elsewhere(draft: Draft, failure: Failure) -> None:
    """A recovery does not end because one node cannot restore: other nodes, then the older snapshot, then
    the user's turn."""
    record = draft.record
    failed = tuple(
        place.node
        for place in record.nodes
        if place.node not in record.reports or record.reports[place.node].phase is Phase.FAILED
    )
    if record.attempts < ATTEMPTS:
        abandon(draft, failure, avoid=tuple(sorted({*record.avoid, *failed})))
    elif record.older is not None:
        fall_back(draft, failure)
    else:
        abandon(draft, failure, intent=Intent.SUSPEND, target=None)


def _again(draft: Draft, failure: Failure, kind: str) -> None:
    record = draft.record
    if record.pending is not None:
        draft.effects.append(DeleteSnapshot(record.pending))
    drop_part(draft)
    if record.move is None or record.move.kind == "checkpoint":
        draft.begin_move(MOVE)
    origin = f"its snapshot {record.snapshot.snapshot_id}" if record.snapshot else "the beginning"
    draft.log(kind, f"{failure.message}: it goes on from {origin}")
    intent = Intent.SUSPEND if record.intent is Intent.SUSPEND else Intent.RUN
    abandon(draft, failure, intent=intent, next=None, back=None, pending=None)
