"""The controller's side of archiving: says what shall be archived, forgotten and collected, runs the archiver
process (one a region, of the lowest priority), and removes raw folders that are not needed any more.

What shall be follows from the jobs' records at any time, so nothing is lost with the controller:

- of every living job the newest snapshot and the one before it are archived;
- its raw folder stays while it is the newest snapshot of a job that stands still, else goes when the archive
  has it;
- the archive keeps the newest of a living job, two unless its user or the fleet says more, and none of one
  that is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

from midstep.control.service import Service
from midstep.control.tasks import Tasks
from midstep.control.vaults.checkpoints import kept
from midstep.control.vaults.forking import refs
from midstep.control.vaults.hurry import Hurry, Running, leaves_region, reason_of
from midstep.control.vaults.snapshots import Vaults
from midstep.engine.effects import Log
from midstep.engine.record import JobRecord
from midstep.env import Clock
from midstep.model.job import CheckpointRule, SnapshotRef
from midstep.model.lifecycle import Stage
from midstep.policy.intervals import FLEET
from midstep.vault.archive.archive import job_of
from midstep.vault.archive.orders import News, Orders, news_of, to_json
from midstep.vault.archive.retention import Rule

LOG = logging.getLogger("midstep.control")
_HOPELESS = ("SnapshotMissing", "SnapshotIncomplete", "Fenced")  # again will not help
_FIRST_RETRY_S, _LAST_RETRY_S = 5.0, 600.0
_MOST_RULES = 200  # one run's: the rest comes with the next


class Archiving:
    """``command``: the archiver's, without its options; empty: nothing is archived."""

    def __init__(
        self,
        service: Service,
        vaults: Vaults,
        clock: Clock,
        command: Sequence[str],
        owner: str,
        rule: CheckpointRule = FLEET,
    ) -> None:
        self._service, self._vaults, self._clock = service, vaults, clock
        self._command, self._owner, self._rule = tuple(command), owner, rule
        self._wakes = {region: asyncio.Event() for region in vaults.regions}
        self._generations: dict[tuple[str, str], int] = {}  # region, job -> ours
        self._rules: dict[str, dict[str, Rule]] = {region: {} for region in vaults.regions}  # not applied yet
        self._hopeless: set[str] = set()
        self._hurt: dict[str, set[str]] = {region: set() for region in vaults.regions}  # not mended yet
        self._refused: set[tuple[str, str]] = set()  # region, job: its rule could not be applied just now
        self.hurry = Hurry()
        self._failures = 0
        self._tasks = Tasks()
        service.on_change.append(self._changed)

    async def run(self) -> None:
        """Until cancelled, which ends the archiver, too."""
        if not self._command:
            return
        needed = self._needed()
        for record in self._service.records.values():
            self._expect(record.job_id, needed)
        try:
            await asyncio.gather(*map(self._look_after, self._vaults.regions))
        finally:
            self.hurry.stop()
            self._tasks.cancel()

    async def _look_after(self, region: str) -> None:
        while True:  # by itself: another region's archive may not answer for long
            self._wakes[region].clear()
            if not await self._work(region):
                self._again_later()
            await self._wakes[region].wait()

    def hasten(self, region: str, snapshot_id: str, reason: str = "") -> bool:
        """Have a snapshot archived now, because somebody waits; `hurry` tells how it goes. Whether anything
        can be archived at all."""
        if not self._command or region not in self._vaults.regions:
            return False
        job_id = job_of(snapshot_id)
        number = self._generations.get((region, job_id))
        owned = {job_id: number} if number is not None else {}
        claim = () if owned else (job_id,)
        orders = Orders({snapshot_id: reason}, owned, claim, owner=self._owner)
        self.hurry.start(region, snapshot_id, orders, self._archiver)
        return True

    def _changed(self, before: JobRecord | None, after: JobRecord) -> None:
        if not self._command:
            return
        if leaves_region(after) and (before is None or before.snapshot != after.snapshot):
            assert after.snapshot is not None
            self.hasten(after.snapshot.region, after.snapshot.snapshot_id, reason_of(after))
        held = refs(before) if before is not None else ()
        if held != refs(after):
            needed = self._needed()
            touched = {after.job_id, *(job_of(ref.snapshot_id) for ref in (*held, *refs(after)))}
            for job_id in touched & self._service.records.keys():  # others' snapshots are not ours to judge
                self._expect(job_id, needed)
            self._wake()
        if before is not None and before.damaged != after.damaged:
            for hurt in self._hurt.values():
                hurt.update(set(after.damaged) - set(before.damaged))
            self._wake()
        self._release(after)

    def forget(self, job_id: str) -> None:
        """Keep nothing of a job that was expected, and does not come."""
        if self._command and job_id not in self._service.records:
            self._expect(job_id, {})
            self._wake()

    def _expect(self, job_id: str, needed: Mapping[str, tuple[str, ...]]) -> None:
        """The rule for a job's archived snapshots, in every region that it may have been in."""
        record = self._service.records.get(job_id)
        lives = record is not None and record.stage is not Stage.OVER
        keep = kept(record.spec.checkpoints, self._rule) if record is not None and lives else 0
        for rules in self._rules.values():
            rules[job_id] = Rule(job_id, keep, needed.get(job_id, ()))

    def _needed(self) -> dict[str, tuple[str, ...]]:
        """Job -> its snapshots that any job would go on from: jobs may start from those of others."""
        found: dict[str, set[str]] = {}
        for record in self._service.records.values():
            for ref in refs(record):
                found.setdefault(job_of(ref.snapshot_id), set()).add(ref.snapshot_id)
        return {job_id: tuple(sorted(names)) for job_id, names in found.items()}

    def _release(self, record: JobRecord) -> None:
        """Remove raw folders that are archived and that nobody is about to read. They are out of sight at
        once: the engine may order a restore in the next moment."""
        for ref in refs(record):
            if any(_may_read(each, ref) for each in (record, *self._service.records.values())):
                continue
            if ref.snapshot_id in self._vaults.durable and self._vaults.hide(ref.snapshot_id):
                self._tasks.spawn(self._vaults.clear(ref.snapshot_id))

    def _orders(self, region: str) -> Orders | None:
        living = [record for record in self._service.records.values() if record.stage is not Stage.OVER]
        store: dict[str, str] = {}
        for record in living:
            for ref in reversed(refs(record)):  # the older one first
                known = ref.snapshot_id in self._vaults.durable or ref.snapshot_id in self._hopeless
                known = known or (region, record.job_id) in self.hurry.now
                if ref.region == region and not known:
                    store[ref.snapshot_id] = reason_of(record)
        rules = dict(list(self._rules[region].items())[:_MOST_RULES])
        hurt, self._hurt[region] = tuple(sorted(self._hurt[region])), set()
        if not store and not rules and not hurt:
            return None
        owned = {job: number for (where, job), number in self._generations.items() if where == region}
        taken = {*owned, *(job_id for where, job_id in self.hurry.now if where == region)}
        mine = tuple(r.job_id for r in living if r.job_id not in taken and refs(r))
        for job_id in rules:
            del self._rules[region][job_id]
        return Orders(store, owned, mine, tuple(rules.values()), bool(rules), hurt, self._owner)

    async def _work(self, region: str) -> bool:
        """Whether all that was to do in a region is done."""
        orders = self._orders(region)
        if orders is None:
            return True
        self._refused = {it for it in self._refused if it[0] != region}
        code, error = await self._archiver(region, orders)
        if code != 0:
            words = f"{code}: {error}" if error else f"{code}"
            LOG.warning("the archiver of region %s ended with %s", region, words)
            again = [rule for rule in orders.retain if code != 1 or (region, rule.job_id) in self._refused]
            self._rules[region] = {**{rule.job_id: rule for rule in again}, **self._rules[region]}
            self._hurt[region].update(orders.mend if code != 1 or (region, "") in self._refused else ())
        elif self._rules[region]:
            self._wake()
        return code == 0

    async def _archiver(self, region: str, orders: Orders, eager: bool = False) -> tuple[int, str]:
        """Run it; its exit code, and the last error that belongs to no snapshot. ``eager``: at normal
        priority."""
        pipe = asyncio.subprocess.PIPE
        words = (*self._command, "--vault", str(self._vaults.root(region)), *(["--eager"] if eager else ()))
        try:
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
        except OSError as error:
            return 2, str(error)
        assert process.stdin is not None and process.stdout is not None
        last = ""
        running = Running(region, orders, process.pid)
        self.hurry.running.append(running)
        try:
            process.stdin.write(to_json(orders).encode() + b"\n")
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            process.stdin.close()
            async for line in process.stdout:
                with contextlib.suppress(ValueError, TypeError):
                    news = news_of(line.decode())
                    moot = self._is_moot(news)
                    running.note(news, moot)
                    last = self._hear(region, news, moot) or last
            return running.code(await process.wait()), last
        finally:
            self.hurry.running.remove(running)
            self.hurry.tell()
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _hear(self, region: str, news: News, moot: bool) -> str:
        self.hurry.hear(news)
        match news.what:
            case "claimed":
                self._generations[region, news.job_id] = news.generation
            case "archived":
                self._failures = 0
                self._archived(news)
            case "failed" if moot:
                LOG.info("snapshot %s was replaced before it was archived", news.snapshot_id)
            case "failed" if news.snapshot_id:
                self._failed(news)
            case "failed":
                LOG.warning("archive of region %s: %s %s", region, news.job_id, news.error)
                if news.kind not in _HOPELESS:
                    self._refused.add((region, news.job_id))
                return news.error
            case "collected":
                self._service.note("", Log("archive", f"collected in region {region}", "", None, news.nbytes))
            case "mended" if news.nbytes:
                words = f"{news.nbytes} damaged chunks in region {region} are not used any more: {news.error}"
                self._service.note("", Log("archive", words))
            case _:
                pass
        return ""

    def _archived(self, news: News) -> None:
        self._vaults.durable.add(news.snapshot_id)
        record = self._service.records.get(news.job_id)
        if record is None:
            return
        if not news.again:
            share = 100 * news.new_bytes / news.nbytes if news.nbytes else 0.0
            words = f"{news.snapshot_id} is archived: {share:.1f} % of {news.nbytes} bytes were new"
            log = Log("archive", words, "", news.duration_s, news.stored_bytes)
            self._service.note(news.job_id, log)
        self._release(record)

    def _is_moot(self, news: News) -> bool:
        """Whether it says that a snapshot failed which no job needs any more: it was replaced meanwhile, and
        its folders are gone."""
        if news.what != "failed" or not news.snapshot_id:
            return False
        living = (it for it in self._service.records.values() if it.stage is not Stage.OVER)
        return news.snapshot_id not in {ref.snapshot_id for record in living for ref in refs(record)}

    def _failed(self, news: News) -> None:
        LOG.warning("snapshot %s is not archived: %s", news.snapshot_id, news.error)
        if self._failures == 0 or news.kind in _HOPELESS:
            self._service.note(
                news.job_id, Log("archive", f"{news.snapshot_id} is not archived: {news.error}")
            )
        if news.kind in _HOPELESS:
            self._hopeless.add(news.snapshot_id)

    def _again_later(self) -> None:
        delay_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**self._failures)
        self._failures += 1

        async def wait() -> None:
            await self._clock.sleep(delay_s)
            self._wake()

        self._tasks.spawn(wait())

    def _wake(self) -> None:
        for event in self._wakes.values():
            event.set()


def _may_read(record: JobRecord, ref: SnapshotRef) -> bool:
    """Whether nodes read its folders, or may be told to in the next moment."""
    if ref == record.snapshot and record.stage not in (Stage.RUNNING, Stage.OVER):
        return True
    return ref == record.source and record.stage in (Stage.HOLDING, Stage.JOINING)
