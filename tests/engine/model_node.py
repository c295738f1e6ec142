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
    made: str | None = None  # the checkpoint whose part is in memory
    stored: str | None = None  # the one whose part has been brought from there into the vault
    origin: str = ""  # the cut that the processes went on from last; '': started anew


class ModelNode:
    """One node. ``sick``: the next order fails so."""

    def __init__(self, name: str, vault: dict[str, set[int]] | None = None) -> None:
        self.name = name
        self.vault = vault if vault is not None else {}  # snapshot -> ranks with an image, on all nodes
        self.damaged: set[str] = set()  # snapshots that cannot be read any more, on all nodes
        self.jobs: dict[str, Entry] = {}
        self.inbox: list[Order] = []
        self.sick: Failure | None = None
        self.connected = True
        self.wrongs: list[str] = []  # orders that destroy what they must keep

    def images(self, snapshot_id: str) -> set[int]:
        """The ranks that a snapshot has."""
        return self.vault.get(snapshot_id, set())

    def reports(self) -> list[JobOnNode]:
        """Everything the node has."""
        return [self._report(job_id, entry) for job_id, entry in sorted(self.jobs.items())]

    def _report(self, job_id: str, entry: Entry) -> JobOnNode:
        ranks = tuple(RankStatus(rank, entry.exits.get(rank)) for rank in entry.ranks)
        target = entry.dumped if entry.phase is Phase.DUMPED else None
        report = JobOnNode(job_id, entry.epoch, entry.phase, 5000, ranks, entry.failure, target=target)
        return replace(report, stored=entry.stored)

    def obey(self, order: Order) -> None:
        """Carry out one order, whole or not at all."""
        entry = self.jobs.get(order.job_id)
        if entry is not None and entry.epoch > order.epoch:
            return
        failed_before = entry is not None and entry.tried == (order.epoch, order.goal)
        if failed_before and order.goal is not Goal.GONE:  # cleaning up is tried again
            return
        if entry is not None and order.goal is Goal.RUN and order.target and entry.phase is Phase.RUNNING:
            self._store(order, entry)
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
        cut = order.source.snapshot_id if order.source else None
        here = set(entry.ranks) & set(_ranks(order)) if entry is not None and entry.alive else set[int]()
        same_cut = cut is None or (entry is not None and entry.dumped == cut)
        if entry is not None and same_cut and (here == set(_ranks(order)) == set(entry.ranks)):
            self._adopt(order, entry)
            return
        if entry is not None and same_cut and here and cut is not None:  # some leave, or come
            if set(_ranks(order)) - here <= self.images(cut):
                self._adopt(order, entry)
            else:
                self._lack(order, replace(entry, ranks=tuple(sorted(here))), cut)
            return
        never_ran = entry is not None and not entry.alive and entry.phase in (Phase.HELD, Phase.PROXY_LOST)
        if order.adopt and not never_ran:
            lost = Failure("reconnect", "the ranks are not here", Fault.NODE, intact=False)
            self._fail(order, entry, lost)
            return
        if cut in self.damaged:
            self._spoilt(order, cut)
            return
        if cut is not None and not set(_ranks(order)) <= self.images(cut):
            self._lack(order, None, cut)
            return
        if entry is not None and entry.running:
            self.wrongs.append(f"{self.name}: running processes thrown away by {order}")
        held = Entry(order.epoch, Phase.HELD, _ranks(order), cut is not None, dumped=cut, origin=cut or "")
        self.jobs[order.job_id] = held

    def _adopt(self, order: Order, entry: Entry) -> None:
        origin = entry.origin if order.source is None else order.source.snapshot_id
        self.jobs[order.job_id] = replace(
            entry, epoch=order.epoch, phase=Phase.HELD, failure=None, tried=None, ranks=_ranks(order),
            origin=origin,
        )  # fmt: skip

    def _lack(self, order: Order, entry: Entry | None, cut: str) -> None:
        """The snapshot has no image of a rank that is not here."""
        failure = Failure("restore", f"{cut} has no image", Fault.NODE, intact=False)
        entry = entry or Entry(order.epoch, Phase.FAILED, _ranks(order))
        self.jobs[order.job_id] = replace(
            entry, epoch=order.epoch, phase=Phase.FAILED, failure=failure, tried=(order.epoch, order.goal)
        )

    def _spoilt(self, order: Order, cut: str) -> None:
        failure = Failure("fetch", f"{cut} is damaged", Fault.SNAPSHOT, intact=False)
        aim = (order.epoch, order.goal)
        failed = Entry(order.epoch, Phase.FAILED, _ranks(order), failure=failure, tried=aim)
        self.jobs[order.job_id] = failed

    def fence(self) -> None:
        """The controller was lost for too long: nothing runs any more."""
        for job_id, entry in self.jobs.items():
            if entry.running:
                self.jobs[job_id] = replace(entry, phase=Phase.PROXY_LOST, running=False)

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
            assert order.target is not None
            if order.keep:
                self.jobs[order.job_id] = replace(self.jobs[order.job_id], made=order.target, stored=None)
                return
            homes = {rank.home for rank in order.place.ranks}
            leaving = homes if order.leaving is None else set(order.leaving)
            ranks = {rank.rank for rank in order.place.ranks if rank.home in leaving}
            self.vault.setdefault(order.target, set()).update(ranks)

    def _store(self, order: Order, entry: Entry) -> None:
        """Bring what was made at a cut into the vault, while the ranks run on."""
        if entry.made == order.target and entry.epoch == order.epoch:
            assert order.target is not None
            self.vault.setdefault(order.target, set()).update(_ranks(order))
            self.jobs[order.job_id] = replace(entry, made=None, stored=order.target)

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

    def restart(self) -> None:
        """As a machine that was switched off and on: records are there, processes are not."""
        for job_id, entry in self.jobs.items():
            if entry.phase in (Phase.GONE, Phase.FAILED) or not entry.alive:
                continue
            gone = replace(entry, alive=False, running=False, made=None)
            if entry.phase is not Phase.DUMPED:
                lost = Failure("run", "the ranks went with the node", Fault.NODE, intact=False)
                gone = replace(gone, phase=Phase.FAILED, failure=lost, tried=None)
            self.jobs[job_id] = gone

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
