"""Builders for engine tests: a job, and what happens to it, in a line each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midstep.engine.check import check, check_step
from midstep.engine.effects import Effect
from midstep.engine.events import (
    DeadlinePassed,
    Event,
    NodeReported,
    Placed,
    SnapshotCommitted,
    SnapshotFailed,
    Submitted,
)
from midstep.engine.orders import Order, desired
from midstep.engine.record import JobRecord
from midstep.engine.step import step
from midstep.model.job import JobSpec, NodePlace, Placement, RankPlace, SnapshotRef
from midstep.model.phase import Failure, Fault, JobOnNode, Phase, RankStatus


def placement(*nodes: str, per_node: int = 1, region: str = "east") -> Placement:
    """Ranks in order over nodes, a device each."""
    places: list[NodePlace] = []
    for index, node in enumerate(nodes):
        first = index * per_node
        ranks = tuple(RankPlace(first + i, index, i, per_node, (i,)) for i in range(per_node))
        places.append(NodePlace(node, index, ranks))
    return Placement(region, tuple(places))


@dataclass
class Play:
    """One job's story. Every step is checked."""

    world_size: int = 1
    now_s: float = 1000.0
    retries: int = 0
    record: JobRecord = field(init=False)
    effects: list[Effect] = field(default_factory=list[Effect])

    def __post_init__(self) -> None:
        spec = JobSpec(("python", "x.py"), self.world_size, self.world_size, retries=self.retries)
        self.record = step(None, Submitted("j-1", spec), self.now_s).record

    def happens(self, event: Event, after_s: float = 1.0) -> Play:
        """An event."""
        self.now_s += after_s
        before = self.record
        stepped = step(before, event, self.now_s)
        check([stepped.record])
        check_step(before, stepped.record)
        self.record = stepped.record
        self.effects.extend(stepped.effects)
        return self

    def placed(self, *nodes: str, in_place: bool = False, region: str = "east") -> Play:
        """The policy found these nodes."""
        per_node = self.world_size // len(nodes)
        where = placement(*nodes, per_node=per_node, region=region)
        return self.happens(Placed(where, self.record.version, in_place))

    def all(self, phase: Phase) -> Play:
        """Every node reports a phase."""
        for place in self.record.nodes:
            if phase is Phase.GONE and place.node not in {p.node for p in self.record.nodes}:
                continue
            self.reports(place.node, phase)
        return self

    def reports(
        self,
        node: str,
        phase: Phase,
        *,
        epoch: int | None = None,
        exits: dict[int, int] | None = None,
        failure: Failure | None = None,
        stored: bool = False,
        not_stored: str = "",
    ) -> Play:
        """One node reports."""
        places = [p for p in self.record.nodes if p.node == node]
        numbers = [r.rank for p in places for r in p.ranks]
        ranks = tuple(RankStatus(r, (exits or {}).get(r)) for r in numbers)
        number = self.record.epoch if epoch is None else epoch
        store = {"k": "dg=="} if phase is Phase.DUMPED else {}
        target = self.record.pending if phase is Phase.DUMPED else None
        storing = self.record.storing.snapshot_id if stored and self.record.storing else None
        report = JobOnNode("j-1", number, phase, 5000, ranks, failure, store=store, target=target)
        report = replace(report, stored=storing, not_stored=not_stored)
        return self.happens(NodeReported(node, report))

    def fails(
        self, node: str, step: str, fault: Fault = Fault.NODE, *, intact: bool = True, message: str = "no"
    ) -> Play:
        """One node cannot do what is wanted."""
        return self.reports(node, Phase.FAILED, failure=Failure(step, message, fault, intact))

    def commits(self) -> Play:
        """The snapshot that is being made or stored is committed."""
        storing = self.record.storing
        name = storing.snapshot_id if storing else self.record.pending
        assert name is not None and self.record.placement is not None
        reference = SnapshotRef(name, self.record.placement.region, 42)
        return self.happens(SnapshotCommitted(reference, 0.5))

    def commit_fails(self, fault: Fault = Fault.JOB_STATE) -> Play:
        """The pending snapshot cannot be committed."""
        assert self.record.pending is not None
        return self.happens(SnapshotFailed(self.record.pending, "disk full", fault))

    def overdue(self) -> Play:
        """The stage's deadline passes."""
        assert self.record.deadline_s is not None
        return self.happens(DeadlinePassed(), after_s=self.record.deadline_s - self.now_s)

    def runs(self, *nodes: str, in_place: bool = False) -> Play:
        """From the queue to running."""
        return self.placed(*nodes, in_place=in_place).all(Phase.HELD).all(Phase.RUNNING)

    def stores(self) -> Play:
        """Every node has brought its part of the checkpoint into the vault, and it is committed."""
        for place in self.record.nodes:
            self.reports(place.node, Phase.RUNNING, stored=True)
        return self.commits()

    def order(self, node: str) -> Order | None:
        """What the node shall do."""
        return desired(self.record).get(node)
