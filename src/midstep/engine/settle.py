"""How far a job can go with what is known: looks only at the record, so it does not matter in which order
news came."""

from __future__ import annotations

from dataclasses import replace

from midstep.engine import ahead, checkpoints, leaving, recovery, ways
from midstep.engine.deadlines import LIMITS_S, deadline_at_s
from midstep.engine.draft import Draft
from midstep.engine.record import Exit, Intent, JobRecord, Peer
from midstep.model.lifecycle import JobState, Stage, Trigger
from midstep.model.phase import Failure, Fault, Phase, RankStatus

_WANTED = {
    Stage.HOLDING: (Phase.HELD,),
    Stage.JOINING: (Phase.RUNNING,),
    Stage.DUMPING: (Phase.DUMPED,),
}


def settle(draft: Draft) -> None:
    """Take every move that is due."""
    before = None
    while before is not draft.record:
        before = draft.record
        _advance(draft)


def _advance(draft: Draft) -> None:
    record = draft.record
    match record.stage:
        case Stage.WAITING | Stage.COMMITTING | Stage.OVER:
            return
        case Stage.RELEASING | Stage.ENDING:
            _leaving(draft)
        case Stage.FROZEN:
            _exits(draft)
        case _:
            if not _exits(draft) and not _failures(draft) and not _forsaken(draft):
                _reached(draft)


def _leaving(draft: Draft) -> None:
    record = draft.record
    if all(leaving.gone(record, place.node) for place in record.nodes):
        if record.stage is Stage.ENDING:
            leaving.ended(draft)
        else:
            leaving.released(draft)
        return
    silent = {place.node for place in record.nodes if not leaving.gone(record, place.node)}
    if silent <= set(record.given_up):
        leaving.leave_behind(draft)
        return
    failed = [
        (node, report) for node, report in sorted(record.reports.items()) if report.phase is Phase.FAILED
    ]
    answered = {node for node, report in record.reports.items() if report.phase in (Phase.FAILED, Phase.GONE)}
    if failed and answered >= {place.node for place in record.nodes} and not _must_wait(record):
        node, report = failed[0]
        failure = report.failure or Failure("remove", "the node gave no reason", Fault.NODE)
        draft.log("failure", f"{failure.step}: {failure.message}", node)
        draft.set(failure=record.failure or failure)
        leaving.leave_behind(draft)


def _must_wait(record: JobRecord) -> bool:
    """What may be running there must be confirmed to be gone before the job goes on anywhere else."""
    return record.stage is Stage.RELEASING and record.ran


def _exits(draft: Draft) -> bool:
    """Whether ranks that ended decide what happens."""
    record = draft.record
    ranks = [rank for _, report in sorted(record.reports.items()) for rank in report.ranks]
    bad = sorted((rank for rank in ranks if rank.exit_code), key=_blame)
    if bad and not record.ran and record.source is not None:
        message = f"rank {bad[0].rank} ended while it was being restored"
        ways.cannot_hold(draft, Failure("restore", message, Fault.NODE, intact=False))
        return True
    if bad:
        _ended_badly(draft, bad[0])
        return True
    if len({rank.rank for rank in ranks if rank.exit_code == 0}) == record.spec.world_size:
        leaving.end(draft, JobState.COMPLETED, exit=Exit(0, 0))
        return True
    return False


def _ended_badly(draft: Draft, rank: RankStatus) -> None:
    record, code = draft.record, rank.exit_code or 1
    exit = Exit(rank.rank, code, rank.last_lines)
    if record.stage is not Stage.FROZEN and code == recovery.KILLED:
        words = f"rank {rank.rank} was killed (SIGKILL), from outside or for want of memory"
        recovery.start_over(draft, Failure("run", words, Fault.NODE, intact=False), exit)
    elif record.stage is not Stage.FROZEN and record.retried < record.spec.retries:
        recovery.retry(draft, exit)
    else:
        leaving.end(draft, JobState.FAILED, exit=exit)


def _blame(rank: RankStatus) -> tuple[bool, int]:
    """A rank that ended by itself before one that was killed; ranks often die because another did."""
    return ((rank.exit_code or 0) > 128, rank.rank)


def _forsaken(draft: Draft) -> bool:
    """Whether nodes that will not answer any more decide what happens."""
    nodes = recovery.gone_for_good(draft.record)
    if nodes:
        recovery.lose_nodes(draft, nodes)
    return bool(nodes)


def _failures(draft: Draft) -> bool:
    """Whether a node that cannot do what is wanted decides what happens."""
    record = draft.record
    for node, report in sorted(record.reports.items()):
        if report.phase is Phase.FAILED:
            _failed(draft, report.failure or Failure("unknown", f"{node} gave no reason", Fault.NODE))
            return True
    for node, report in sorted(record.reports.items()):
        if report.phase is Phase.PROXY_LOST:
            lost = Failure("reconnect", f"the proxy on {node} was lost", Fault.TRANSIENT)
            _failed(draft, lost)
            return True
    return False


def _failed(draft: Draft, failure: Failure) -> None:
    record = draft.record
    proxy_only = failure.step == "reconnect" and failure.fault is Fault.TRANSIENT and failure.intact
    match record.stage:
        case Stage.HOLDING if not record.ran and not proxy_only:
            ways.cannot_hold(draft, failure)
        case Stage.DUMPING if failure.intact:
            ways.roll_back(draft, failure)
        case _ if failure.intact and failure.fault is not Fault.USER:
            ways.reconnect(draft, failure)
        case Stage.HOLDING | Stage.JOINING | Stage.RUNNING | Stage.DUMPING if failure.fault.passes:
            recovery.start_over(draft, failure)
        case _ if record.snapshot is not None and failure.fault is not Fault.USER:
            leaving.give_up(draft, failure)
        case _:
            leaving.end(draft, JobState.FAILED, failure)


def _reached(draft: Draft) -> None:
    checkpoints.look(draft)
    record = draft.record
    if record.stage is Stage.RUNNING:
        migrates = record.intent is Intent.MIGRATE and record.next is not None
        if record.intent is Intent.SUSPEND or record.yields or migrates:
            if not ahead.holds(draft):
                ways.cut(draft)
        elif record.next is not None:
            ways.resize(draft)
        return
    wanted = _WANTED[record.stage]
    phases = [record.reports[p.node].phase if p.node in record.reports else None for p in record.nodes]
    if not all(phase in wanted for phase in phases):
        return
    if record.stage is Stage.DUMPING and not all(record.dumped(place.node) for place in record.nodes):
        return  # a late word on the checkpoint before this one
    match record.stage:
        case Stage.HOLDING:
            saves = record.saves if record.ran else replace(record.saves, since_s=draft.now_s)
            draft.go(Trigger.ALL_HELD, peers=_peers(record), ran=True, saves=saves)
            if record.part is not None:  # nothing goes back from here on
                leaving.leave_parked(draft, record.parked)
                draft.set(back=None)
        case Stage.JOINING:
            _running(draft)
        case _ if record.keeps:
            checkpoints.keep(draft)
        case _:
            ways.commit(draft)


def _peers(record: JobRecord) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            place.index, place.node, record.reports[place.node].proxy_port, tuple(r.rank for r in place.ranks)
        )
        for place in record.nodes
    )


def _running(draft: Draft) -> None:
    record = draft.record
    arrived = record.back is not None  # a migration came to its end
    saved = record.storing is not None
    if saved:
        checkpoints.measured(draft)
    elif record.move is not None:
        # What a recovery says is why it was needed.
        draft.end_move(ok=not record.move.message or record.move.kind == recovery.MOVE)
    started_s = draft.now_s if record.started_s is None else record.started_s
    running_s = record.running_s if saved else draft.now_s
    draft.go(Trigger.ALL_RUNNING, started_s=started_s, running_s=running_s, avoid=(), failure=None)
    if record.part is not None:
        leaving.drop_part(draft)
        draft.set(source=None)
    if arrived:
        draft.set(back=None, intent=Intent.RUN if record.intent is Intent.MIGRATE else record.intent)
    _forget_target(draft, arrived=arrived)


def _forget_target(draft: Draft, *, arrived: bool) -> None:
    """Where it was sent matters no more when it runs there, unless it was submitted for somewhere else."""
    record = draft.record
    assert record.placement is not None
    there = record.intent is Intent.RUN and record.target is not None and record.target.met(record.placement)
    if (arrived or there) and record.spec.node is None and record.spec.region is None:
        draft.set(target=None)


def overdue(draft: Draft) -> None:
    """The stage took too long."""
    record = draft.record
    if record.stage is Stage.RUNNING:
        draft.set(deadline_s=None)
        if record.ahead is not None:
            ahead.give_up(draft, "it took too long")
        return
    failure = _overrun(record)
    match record.stage:
        case Stage.HOLDING if not record.ran:
            ways.cannot_hold(draft, failure)
        case Stage.HOLDING | Stage.JOINING if not record.unreachable:
            ways.reconnect(draft, failure)
        case Stage.DUMPING | Stage.COMMITTING:
            ways.roll_back(draft, failure)
        case Stage.RELEASING | Stage.ENDING if not _must_wait(record):
            leaving.leave_behind(draft)
        case Stage.RELEASING:  # ask once more, under a new epoch: an agent does not repeat what failed
            later_s = deadline_at_s(record.stage, draft.now_s)
            draft.set(epoch=record.epoch + 1, reports={}, deadline_s=later_s)
        case _:  # nothing is safe but to wait for the nodes: what runs there must not run twice
            draft.set(deadline_s=deadline_at_s(record.stage, draft.now_s))


def _overrun(record: JobRecord) -> Failure:
    wanted = _WANTED.get(record.stage, ())
    reports = record.reports
    late = [p.node for p in record.nodes if p.node not in reports or reports[p.node].phase not in wanted]
    where = f" on {', '.join(late)}" if late and record.stage is not Stage.COMMITTING else ""
    unreachable = [node for node in record.unreachable if node in late]
    hint = f"not connected: {', '.join(unreachable)}" if unreachable else ""
    message = f"{record.stage} took longer than {LIMITS_S[record.stage]:.0f} s{where}"
    # Not tried again by itself: what hung once hangs again, with the job's ranks standing still meanwhile.
    fault = Fault.NODE if record.stage is Stage.HOLDING else Fault.JOB_STATE
    return Failure(str(record.stage), message, fault, intact=True, hint=hint)
