"""A node as the engine may assume it: obeys orders late, repeats itself, loses proxies and processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midstep.engine.orders import Order
from midstep.model.phase import Failure, Fault, Goal, JobOnNode, Phase, RankStatus


@dataclass
class Entry:
    """A job on the node. ``running``: its processes run; ``alive``: they exist, perhaps stopped."""

    epoch: int
    phase: Phase
    ranks: tuple[int, ...]
    alive: bool = False
    running: bool = False
    exits: dict[int, int] = field(default_factory=dict[int, int])
    failure: Failure | None = None
    tried: tuple[int, Goal] | None = None
    dumped: str | None = None  # the cut at which the processes stand
    origin: str = ""  # the snapshot that the processes came from; '': started anew


class ModelNode:
    """One node. ``sick``: the next order fails so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[str, Entry] = {}
        self.inbox: list[Order] = []
        self.sick: Failure | None = None
        self.connected = True
        self.wrongs: list[str] = []  # orders that destroy what they must keep

    def reports(self) -> list[JobOnNode]:
        """Everything the node has."""
        return [self._report(job_id, entry) for job_id, entry in sorted(self.jobs.items())]

    def _report(self, job_id: str, entry: Entry) -> JobOnNode:
        ranks = tuple(RankStatus(rank, entry.exits.get(rank)) for rank in entry.ranks)
        return JobOnNode(job_id, entry.epoch, entry.phase, 5000, ranks, entry.failure)

    def obey(self, order: Order) -> None:
        """Carry out one order, whole or not at all."""
        entry = self.jobs.get(order.job_id)
        if entry is not None and entry.epoch > order.epoch:
            return
        failed_before = entry is not None and entry.tried == (order.epoch, order.goal)
        if failed_before and order.goal is not Goal.GONE:  # cleaning up is tried again
            return
        done = entry is not None and entry.epoch == order.epoch and entry.phase in _DONE[order.goal]
        if done and not (entry and order.goal is Goal.DUMP and entry.dumped != order.target):
            return
        if self.sick is not None:
            self._fail(order, entry, self.sick)
            self.sick = None
            return
        match order.goal:
            case Goal.HOLD:
                self._hold(order, entry)
            case Goal.RUN:
                self._run(order, entry)
            case Goal.DUMP:
                self._dump(order, entry)
            case Goal.GONE:
                self.jobs[order.job_id] = Entry(order.epoch, Phase.GONE, _ranks(order))

    def _hold(self, order: Order, entry: Entry | None) -> None:
        if entry is not None and entry.epoch == order.epoch:
            return
        adopts = entry is not None and entry.alive and set(entry.ranks) == set(_ranks(order))
        same_cut = order.source is None or (entry is not None and entry.dumped == order.source.snapshot_id)
        if entry is not None and adopts and same_cut:
            self.jobs[order.job_id] = replace(
                entry, epoch=order.epoch, phase=Phase.HELD, failure=None, tried=None
            )
            return
        cut = order.source.snapshot_id if order.source else None
        if entry is not None and entry.running:
            self.wrongs.append(f"{self.name}: running processes thrown away by {order}")
        held = Entry(order.epoch, Phase.HELD, _ranks(order), cut is not None, dumped=cut, origin=cut or "")
        self.jobs[order.job_id] = held

    def _run(self, order: Order, entry: Entry | None) -> None:
        if entry is None or entry.epoch < order.epoch:
            lost = Failure("reconnect", "nothing here", Fault.TRANSIENT, intact=False)
            self.jobs[order.job_id] = Entry(order.epoch, Phase.FAILED, _ranks(order), failure=lost)
        elif entry.phase in (Phase.HELD, Phase.DUMPED) or (entry.phase is Phase.FAILED and entry.alive):
            self.jobs[order.job_id] = replace(
                entry, phase=Phase.RUNNING, alive=True, running=True, dumped=None, failure=None, tried=None
            )

    def _dump(self, order: Order, entry: Entry | None) -> None:
        if entry is None or entry.epoch < order.epoch or not entry.alive:
            return
        if entry.phase in (Phase.RUNNING, Phase.DUMPED, Phase.HELD):
            self.jobs[order.job_id] = replace(entry, phase=Phase.DUMPED, running=False, dumped=order.target)

    def _fail(self, order: Order, entry: Entry | None, failure: Failure) -> None:
        entry = entry or Entry(order.epoch, Phase.FAILED, _ranks(order))
        alive = entry.alive and failure.intact
        entry = replace(entry, epoch=order.epoch, phase=Phase.FAILED, failure=failure, alive=alive)
        self.jobs[order.job_id] = replace(
            entry,
            running=entry.running and alive,
            tried=(order.epoch, order.goal),
            ranks=_ranks(order) or entry.ranks,
        )

    def lose_proxies(self) -> None:
        """Our processes beside the ranks are killed."""
        for job_id, entry in self.jobs.items():
            if entry.phase in (Phase.RUNNING, Phase.HELD):
                self.jobs[job_id] = replace(entry, phase=Phase.PROXY_LOST)

    def finish(self, job_id: str, rank: int, code: int) -> None:
        """A running rank ends."""
        entry = self.jobs[job_id]
        if entry.running and rank in entry.ranks and rank not in entry.exits:
            self.jobs[job_id] = replace(entry, exits={**entry.exits, rank: code})


def _ranks(order: Order) -> tuple[int, ...]:
    return tuple(r.rank for r in order.place.ranks)


_DONE = {
    Goal.HOLD: (Phase.HELD, Phase.RUNNING),
    Goal.RUN: (Phase.RUNNING,),
    Goal.DUMP: (Phase.DUMPED,),
    Goal.GONE: (Phase.GONE,),
}
