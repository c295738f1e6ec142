"""The archiver: a process of the lowest priority that puts committed snapshots into a region's archive.

    python -m midstep.app.archiver --vault ROOT            orders as a JSON line on standard input
    python -m midstep.app.archiver --vault ROOT SNAPSHOT   these, by hand (`--eager`: with usual priority)

It answers with JSON lines (vault/archive/orders.py). Everything it does may be done again, and it may be
killed at any moment; it dies with the process that started it. Exit codes: 0 all done, 1 something was not
(a line says what), 2 the orders or the archive cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from midstep.agent.drivers.kernel import end_with_parent
from midstep.agent.install.criu_find import find_criu
from midstep.env import Clock, RealClock
from midstep.vault import faults
from midstep.vault.archive import fence, gc
from midstep.vault.archive.archive import Archive, job_of
from midstep.vault.archive.leases import awaited
from midstep.vault.archive.mend import mend
from midstep.vault.archive.orders import News, Orders, orders_of, to_json
from midstep.vault.archive.priority import be_modest, in_nobodys_way
from midstep.vault.archive.retention import Rule, doomed
from midstep.vault.errors import SnapshotMissing, VaultError
from midstep.vault.snapshots import Snapshots
from midstep.vault.store.content import Progress

_PROGRESS_S = 0.5

Tell = Callable[[News], None]


class Archiver:
    """One run over one region's vault."""

    def __init__(self, vault: Snapshots, archive: Archive, orders: Orders, tell: Tell, clock: Clock) -> None:
        self._vault, self._archive, self._orders = vault, archive, orders
        self._tell, self._clock = tell, clock
        self._generations = dict(orders.generations)
        self._failed = self._forgot = False

    def run(self) -> bool:
        """Do all that was ordered; whether all of it could be done."""
        for job_id in self._orders.claim:
            self._attempt(News("failed", job_id=job_id), lambda job=job_id: self._generation(job))
        if self._orders.mend:
            self._attempt(News("failed"), self._mend)
        for snapshot_id, reason in self._orders.store.items():
            news = News("failed", snapshot_id, job_of(snapshot_id))
            self._attempt(news, lambda it=snapshot_id, why=reason: self._store(it, why))
        there = {job_of(name) for name in self._archive.snapshot_ids()} if self._orders.retain else set[str]()
        for rule in (rule for rule in self._orders.retain if rule.job_id in there):
            self._attempt(News("failed", job_id=rule.job_id), lambda it=rule: self._retain(it))
        if self._orders.collect and self._forgot:
            self._attempt(News("failed"), self._collect)
        return not self._failed

    def _attempt(self, news: News, work: Callable[[], object]) -> None:
        try:
            work()
        except (VaultError, OSError) as error:
            self._failed = True
            self._tell(replace(news, error=str(error), kind=type(error).__name__))

    def _generation(self, job_id: str) -> int:
        """Ours of a job, claimed if need be."""
        if job_id not in self._generations:
            backend, owner = self._archive.backend, self._orders.owner
            if not owner:  # by hand: in the name of whoever owns the job
                return fence.newest(backend, job_id)
            self._generations[job_id] = fence.claim(backend, job_id, owner, self._archive.ids)
            self._tell(News("claimed", job_id=job_id, generation=self._generations[job_id]))
        return self._generations[job_id]

    def _store(self, snapshot_id: str, reason: str) -> None:
        begun_s, last_s = self._clock.monotonic_s(), 0.0

        def report(progress: Progress) -> None:
            nonlocal last_s
            if (now_s := self._clock.monotonic_s()) - last_s < _PROGRESS_S:
                return
            last_s = now_s
            done, total = progress.done_bytes, progress.total_bytes
            self._tell(
                News(
                    "progress", snapshot_id, done_bytes=done, nbytes=total, stored_bytes=progress.stored_bytes
                )
            )

        there = self._archive.exists(snapshot_id)
        if not there and not self._vault.is_raw(snapshot_id):
            raise SnapshotMissing(f"snapshot {snapshot_id} has no folder in {self._vault.root} any more")
        job_id = job_of(snapshot_id)
        if there:
            archived = self._archive.load(snapshot_id)
        else:
            archived = self._archive.store(
                self._vault.path(snapshot_id),
                self._vault.verify(snapshot_id),
                self._generation(job_id),
                reason=reason,
                versions=self._orders.versions or versions(),
                progress=report,
            )
        took_s = self._clock.monotonic_s() - begun_s
        sizes = (archived.nbytes, archived.new_bytes, archived.stored_bytes, archived.nbytes)
        self._tell(News("archived", snapshot_id, job_id, archived.generation, *sizes, took_s, there))

    def _retain(self, rule: Rule) -> None:
        archive = self._archive
        if rule.job_id in self._generations:
            fence.check(archive.backend, rule.job_id, self._generations[rule.job_id])
        readable = [snapshot.snapshot_id for snapshot in archive.snapshots(rule.job_id)]
        damaged = [name for name in archive.snapshot_ids(rule.job_id) if name not in readable]
        faults.pass_point("retain:before")
        for snapshot_id in doomed(rule, [*damaged, *readable], damaged):
            archive.forget(snapshot_id)
            self._forgot = True
            self._tell(News("forgotten", snapshot_id, rule.job_id))
            faults.pass_point("retain:midway")
        if rule.keep == 0 and not rule.needed:
            fence.forget(archive.backend, rule.job_id)

    def _mend(self) -> None:
        with in_nobodys_way(self._awaited):
            done = mend(self._archive, self._orders.mend)
        lost = sum(pack.lost for pack in done)
        self._tell(News("mended", nbytes=lost, error=", ".join(pack.pack for pack in done)))

    def _awaited(self) -> bool:
        return awaited(self._archive.backend)

    def _collect(self) -> None:
        planned = gc.plan(self._archive)
        if planned.worth_it:
            with in_nobodys_way(self._awaited):
                done = gc.execute(self._archive, planned)
            self._tell(News("collected", nbytes=done.freed_bytes, again=False))


def versions() -> dict[str, str]:
    """What has made the snapshots of this machine: whoever restores one elsewhere may want to know."""
    criu = find_criu()
    found = {"midstep": metadata.version("midstep"), "kernel": os.uname().release}
    return found if criu is None else {**found, "criu": criu.version_text}


def tell(news: News) -> None:
    """One line on standard output. Whoever started this may be gone: then nobody wants the rest."""
    try:
        print(to_json(news), flush=True)
    except BrokenPipeError:
        os._exit(1)


def main() -> int:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="midstep.app.archiver", description="Archive snapshots.")
    parser.add_argument("--vault", type=Path, required=True, metavar="ROOT", help="the region's vault folder")
    parser.add_argument("--crash-at", default="", metavar="POINT", help="for tests: die there")
    parser.add_argument("--eager", action="store_true", help="take the processor and the disk like others")
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT")
    arguments = parser.parse_args()
    end_with_parent()
    if not arguments.eager:
        be_modest()
    try:
        faults.arm(arguments.crash_at)
        by_hand = Orders(store=dict.fromkeys(arguments.snapshots, "by hand"))
        orders = by_hand if arguments.snapshots else orders_of(sys.stdin.readline())
        vault = Snapshots(arguments.vault)
        archive = vault.archive(create=True)
        assert archive is not None
        return 0 if Archiver(vault, archive, orders, tell, RealClock()).run() else 1
    except (VaultError, OSError, ValueError, TypeError, KeyError) as error:
        tell(News("failed", error=str(error), kind=type(error).__name__))
        return 2


if __name__ == "__main__":
    sys.exit(main())
