"""Copy-ahead: a job that goes to another region runs on while what it consists of is copied there. Its newest
snapshot travels first, then checkpoints, as long as each has clearly less to bring than the one before it;
then comes the cut, and only the last difference moves while the job stands still.

It is only ever a help: whatever goes wrong with it, or lasts too long, the job migrates without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from midstep.engine import checkpoints
from midstep.engine.draft import Draft, sized
from midstep.engine.facets import Ahead, NodeStep
from midstep.engine.record import Intent, JobRecord, Move
from midstep.model.job import SnapshotRef
from midstep.model.lifecycle import Stage
from midstep.model.phase import CopyState, CopyStatus, StepTiming

MOVE = "copy-ahead"
ROUNDS = 5
SHRINKS = 0.7  # a further checkpoint must promise to bring less than this share of the one before
SMALL_BYTES, SHORT_S = 4_000_000, 2.0  # a difference that is not worth another checkpoint
_BASE_S, _SLOWEST_BYTES_PER_S = 180.0, 1e6  # a round that takes longer is given up
_LONGEST_S = 3600.0  # all rounds together


@dataclass(frozen=True, slots=True)
class Copy:
    """What a node shall bring into its region's archive."""

    job_id: str
    source: SnapshotRef


def wanted(record: JobRecord) -> dict[str, Copy]:
    """Node -> what it shall copy now."""
    plan = record.ahead
    if plan is None or plan.copying is None or record.next is None or not _lives(record):
        return {}
    return {record.next.nodes[0].node: Copy(record.job_id, plan.copying)}


def holds(draft: Draft) -> bool:
    """Whether the cut of a migration has to wait; begins what it waits for. The job runs, and devices are
    reserved where it goes."""
    record = draft.record
    plan, here, there = record.ahead, record.placement, record.next
    if plan is None or here is None or there is None:
        return False
    if record.intent is not Intent.MIGRATE or here.region == there.region:
        draft.set(ahead=None, deadline_s=None)
        return False
    if draft.record.deadline_s is None:  # that of a round begun before a restart is counted anew
        draft.set(deadline_s=draft.now_s + _limit_s(plan))
    if plan.copying is not None or record.storing is not None or record.unreachable:
        return True
    newest = record.snapshot.snapshot_id if record.snapshot else ""
    if plan.saving and newest == plan.before:
        give_up(draft, "no checkpoint could be taken")
        return False
    if record.snapshot is not None and record.snapshot.region == here.region and newest != plan.before:
        _copy(draft, plan, record.snapshot)
    else:
        draft.set(ahead=replace(plan, saving=True, before=newest), deadline_s=None)
        checkpoints.take(draft)
    return True


def heard(draft: Draft, node: str, status: CopyStatus) -> None:
    """A node's word on what it copies."""
    plan = draft.record.ahead
    if plan is None or plan.copying is None or plan.copying.snapshot_id != status.snapshot_id:
        return
    match status.state:
        case CopyState.COPYING:
            draft.set(ahead=replace(plan, done_bytes=status.done_bytes, left_bytes=status.left_bytes))
        case CopyState.FAILED:
            give_up(draft, status.message)
        case CopyState.DONE:
            _round_done(draft, plan, node, status)


def give_up(draft: Draft, why: str) -> None:
    """The job migrates without (what has come stays there, and need not come again)."""
    plan = draft.record.ahead
    assert plan is not None
    draft.log(MOVE, f"copy-ahead was given up: {why}; the job migrates without")
    _end(draft, plan, ok=False, message=why)


def tidy(draft: Draft) -> None:
    """Forget it when the migration was called off, or came to nothing."""
    plan = draft.record.ahead
    if plan is None or _lives(draft.record):
        return
    running = draft.record.stage is Stage.RUNNING
    if plan.rounds:
        _end(draft, plan, ok=False, message="the migration was called off")
    draft.set(ahead=None)
    if running:
        draft.set(deadline_s=None)


def enough(rounds: int, sent_bytes: int, status: CopyStatus) -> bool:
    """Whether another round would bring little; ``sent_bytes``: by the round before this one."""
    small = status.done_bytes <= SMALL_BYTES or status.duration_s <= SHORT_S
    shrinks = rounds == 1 or status.done_bytes < SHRINKS * sent_bytes
    return small or not shrinks or rounds >= ROUNDS


def _lives(record: JobRecord) -> bool:
    """Devices may not be reserved yet."""
    stages = (Stage.HOLDING, Stage.JOINING, Stage.RUNNING, Stage.DUMPING)
    return record.intent is Intent.MIGRATE and record.stage in stages and record.back is None


def _copy(draft: Draft, plan: Ahead, source: SnapshotRef) -> None:
    fresh = replace(
        plan, rounds=plan.rounds + 1, copying=source, saving=False, done_bytes=0, left_bytes=source.nbytes
    )
    draft.set(ahead=fresh, deadline_s=draft.now_s + _limit_s(fresh))


def _round_done(draft: Draft, plan: Ahead, node: str, status: CopyStatus) -> None:
    assert plan.copying is not None
    timing = StepTiming(f"round {plan.rounds}", status.duration_s, status.done_bytes, status.known_bytes)
    words = f"copy-ahead, round {plan.rounds}: {sized(status.known_bytes)} were there"
    draft.log(MOVE, words, node, status.duration_s, status.done_bytes)
    late = draft.now_s - plan.begun_s > _LONGEST_S
    done = replace(
        plan,
        copying=None,
        before=plan.copying.snapshot_id,
        sent_bytes=status.done_bytes,
        steps=(*plan.steps, NodeStep(node, timing)),
    )
    if late or enough(plan.rounds, plan.sent_bytes, status):
        _end(draft, done, ok=True)
    else:
        draft.set(ahead=done, deadline_s=None)


def _end(draft: Draft, plan: Ahead, *, ok: bool, message: str = "") -> None:
    nbytes = sum(step.timing.nbytes for step in plan.steps)
    move = Move(MOVE, plan.begun_s, draft.now_s, nbytes, plan.steps, ok, message)
    draft.add_move(move)
    draft.set(ahead=None)
    if draft.record.stage is Stage.RUNNING:
        draft.set(deadline_s=None)


def _limit_s(plan: Ahead) -> float:
    nbytes = plan.copying.nbytes if plan.copying else 0
    return _BASE_S + nbytes / _SLOWEST_BYTES_PER_S
