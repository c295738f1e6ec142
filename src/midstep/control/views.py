"""Records as what users see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from midstep.engine.check import users_of_devices
from midstep.engine.draft import sized
from midstep.engine.facets import Ahead
from midstep.engine.leaving import codes_of
from midstep.engine.record import Intent, JobRecord, Move
from midstep.model.fleet import Device, NodeStatus
from midstep.model.job import MILLI
from midstep.model.lifecycle import Stage
from midstep.wire.api import CheckpointView, DeviceView, JobView, MoveView, NodeView, RankView
from midstep.wire.schedule import FractionView

_IDLE = (Stage.WAITING, Stage.OVER)


def job_view(record: JobRecord, now_s: float, saved: CheckpointView, received: FractionView) -> JobView:
    """A job."""
    return JobView(
        job_id=record.job_id,
        name=record.spec.name,
        state=record.shown.value,
        reason=reason(record),
        command=record.spec.command,
        world_size=record.spec.world_size,
        devices=record.spec.amount(record.spec.devices),
        tier=record.spec.tier,
        kind=record.spec.kind,
        epoch=record.epoch,
        region=record.placement.region if record.placement else "",
        ranks=_ranks(record),
        submitted_s=record.submitted_s,
        started_s=record.started_s,
        ended_s=record.ended_s,
        exit_code=record.exit.code if record.exit else None,
        failure=_failure(record),
        last_lines=record.exit.last_lines if record.exit else (),
        snapshot=record.snapshot.snapshot_id if record.snapshot else "",
        snapshot_bytes=record.snapshot.nbytes if record.snapshot else 0,
        moves=_moves(record, now_s),
        stalls=record.stalls,
        devices_now=record.spec.amount(record.devices),
        devices_wanted=record.spec.amount(record.wanted),
        checkpoints=saved,
        older_snapshot=record.older.snapshot_id if record.older else "",
        priority=record.spec.priority,
        project=record.spec.project,
        min_devices=record.spec.amount(record.spec.least),
        pinned=record.asked is not None,
        received=received,
    )


def reason(record: JobRecord) -> str:
    """Why the job is in its state, in a sentence; '' where nothing needs to be said."""
    if record.unreachable and record.stage not in _IDLE:
        parts = [f"{node} (since {_clock(record.lost[node])})" for node in record.unreachable]
        return f"not connected: {', '.join(parts)}"
    if record.stage is Stage.OVER or (record.stage is Stage.ENDING and record.failure):
        return _failure(record)
    if record.stalls:
        stall = record.stalls[0]
        waits = f"{stall.operation} has been waiting for {stall.waiting_s:.0f} s"
        return f"{waits}: {_numbered(stall.posted)} called it, {_numbered(stall.missing)} not"
    if record.yields:
        return record.waiting
    if record.waiting and (record.intent is Intent.MIGRATE or record.stage in (Stage.WAITING, Stage.FROZEN)):
        prefix = f"to migrate to {record.target}, it " if record.intent is Intent.MIGRATE else ""
        return prefix + record.waiting
    if record.waiting and record.would_resize:
        return f"to have {record.wanted} devices in place of {record.devices}, it {record.waiting}"
    if record.parting is not None and record.parting.copies:
        where = f"region {record.parting.region}"
        return f"it runs on until devices are free in {where}, and what it consists of was copied there"
    if record.ahead is not None and record.next is not None:
        return _copied_ahead(record.ahead, record.next.region)
    if record.stage is Stage.RUNNING:
        return _last_failed_move(record)
    return (
        _doing(record) or _failure(record) or (f"to {record.target}" if record.target and record.next else "")
    )


def _copied_ahead(plan: Ahead, region: str) -> str:
    what = f"copied to {region} while it runs, round {max(1, plan.rounds)}"
    if plan.copying is None:
        return f"{what}: a checkpoint is taken"
    return (
        f"{what}: {sized(plan.done_bytes)} have come, {sized(plan.left_bytes)} (uncompressed) have still to"
    )


def _doing(record: JobRecord) -> str:
    """How far what takes long is."""
    for node, report in sorted(record.reports.items()):
        if (doing := report.doing) is not None:
            done, left = sized(doing.done_bytes), sized(doing.left_bytes)
            return f"{doing.step} to {node}: {done} have come, {left} (uncompressed) have still to"
    return ""


def _numbered(ranks: tuple[int, ...]) -> str:
    numbers = ", ".join(map(str, ranks))
    return f"rank {numbers} has" if len(ranks) == 1 else f"ranks {numbers} have"


def node_views(
    nodes: Mapping[str, NodeStatus], records: Iterable[JobRecord], cordoned: tuple[str, ...] = ()
) -> list[NodeView]:
    """All nodes, by name."""
    users = users_of_devices(records)
    views: list[NodeView] = []
    for name, status in sorted(nodes.items()):
        node = status.node
        devices = tuple(_device(d, users.get((name, d.index), {})) for d in sorted(node.devices))
        views.append(
            NodeView(
                name,
                node.region,
                node.address,
                status.connected,
                status.last_seen_s,
                node.freezes_in_place,
                devices,
                name in cordoned,
                node.spot,
            )
        )
    return views


def _device(device: Device, users: Mapping[str, int]) -> DeviceView:
    parts = {job_id: milli / MILLI for job_id, milli in users.items() if milli < MILLI}
    return DeviceView(device.index, device.device_type, device.cpus, tuple(users), parts)


def _ranks(record: JobRecord) -> tuple[RankView, ...]:
    codes = record.exits if record.outcome else codes_of(record)
    if record.placement is None:
        return tuple(RankView(rank, "", (), codes.get(rank)) for rank in range(record.spec.world_size))
    views = [
        RankView(rank.rank, place.node, rank.devices, codes.get(rank.rank))
        for place in record.placement.nodes
        for rank in place.ranks
    ]
    return tuple(sorted(views, key=lambda view: view.rank))


def _failure(record: JobRecord) -> str:
    if record.exit is not None and record.exit.code != 0:
        return f"rank {record.exit.rank} {exit_words(record.exit.code)}"
    if record.failure is None:
        return ""
    hint = f" ({record.failure.hint})" if record.failure.hint else ""
    return f"{record.failure.step}: {record.failure.message}{hint}"


def exit_words(code: int) -> str:
    """An exit code in words."""
    known = {126: "could not execute its command", 127: "did not find its command"}
    if code in known:
        return f"{known[code]} (exit code {code})"
    return f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"


def _last_failed_move(record: JobRecord) -> str:
    done = [move for move in record.moves if move.kind not in ("reconnect", "recover")]
    if done and done[-1].ok is False:
        return f"the last {done[-1].kind} failed: {done[-1].message}"
    return ""


def _moves(record: JobRecord, now_s: float) -> tuple[MoveView, ...]:
    moves = [_move(move, now_s) for move in record.moves]
    return (*moves, _move(record.move, now_s)) if record.move else tuple(moves)


def _move(move: Move, now_s: float) -> MoveView:
    steps = tuple(
        replace(step.timing, step=f"{step.timing.step}@{step.node}" if step.node else step.timing.step)
        for step in move.steps
    )
    ended_s = now_s if move.ended_s is None else move.ended_s
    message = move.message or ("under way" if move.ok is None else "")
    return MoveView(
        move.kind, move.started_s, ended_s - move.started_s, move.nbytes, steps, bool(move.ok), message
    )


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S UTC")
