"""What every node shall do for a job: a pure function of its record, level-triggered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midstep.engine.record import JobRecord, Peer
from midstep.model.job import JobSpec, NodePlace, SnapshotRef
from midstep.model.lifecycle import Stage
from midstep.model.phase import Goal

_GOALS = {
    Stage.HOLDING: Goal.HOLD,
    Stage.JOINING: Goal.RUN,
    Stage.RUNNING: Goal.RUN,
    Stage.DUMPING: Goal.DUMP,
    Stage.COMMITTING: Goal.DUMP,
    Stage.FROZEN: Goal.DUMP,
    Stage.RELEASING: Goal.GONE,
    Stage.ENDING: Goal.GONE,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What one node shall do; the service adds addresses and sends it as an `Assignment`."""

    job_id: str
    epoch: int
    goal: Goal
    spec: JobSpec
    place: NodePlace
    peers: tuple[Peer, ...] = ()
    source: SnapshotRef | None = None
    adopt: bool = False  # HOLD: the ranks have run on; they are here, or the job has lost them
    target: str | None = None
    store: dict[str, str] = field(default_factory=dict[str, str])
    collect: bool = False
    keep: bool = False  # DUMP: the processes go on soon, and the part may be stored after that
    leaving: tuple[int, ...] | None = None  # DUMP: only these virtual hosts; None: all


def desired(record: JobRecord) -> dict[str, Order]:
    """Node -> order. A node that is not named is wanted for nothing."""
    orders = {
        node: Order(record.job_id, left.epoch, Goal.GONE, record.spec, left.place)
        for node, left in sorted(record.leftovers.items())
    }
    goal = _GOALS.get(record.stage)
    if goal is not None:
        orders.update({place.node: _order(record, goal, place) for place in record.nodes})
    return orders


def _order(record: JobRecord, goal: Goal, place: NodePlace) -> Order:
    base = Order(record.job_id, record.epoch, goal, record.spec, place)
    match goal:
        case Goal.HOLD:
            store = record.store if record.part is None else record.cut_store
            leads = place.index == 0 and record.source is not None
            return replace(base, source=record.source, adopt=record.ran, store=store if leads else {})
        case Goal.RUN:
            storing = record.storing.snapshot_id if record.storing else None
            return replace(base, peers=record.peers, target=storing)
        case Goal.DUMP:
            leaving = _leaving(record, place) if record.partly else None
            cut = replace(base, peers=record.peers, target=record.pending, leaving=leaving)
            return replace(cut, keep=record.keeps)
        case Goal.GONE:
            return replace(base, collect=record.stage is Stage.ENDING)


def _leaving(record: JobRecord, place: NodePlace) -> tuple[int, ...]:
    """The virtual hosts on this node that go to another one."""
    assert record.next is not None, "a partial cut knows where its ranks go"
    there = record.next.homes_by_node()
    return tuple(sorted({rank.home for rank in place.ranks if there[rank.home] != place.node}))
