"""Snapshots in a repository.

format                what this is, and in which version; made first
snapshots/JOB/ID      one manifest each, made last, with `create`: a snapshot is there whole or not at all
owners/, leases/      fence.py, leases.py
packs/, index/        the repository's: chunks
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from midstep.env import Clock, Ids
from midstep.vault.archive import fence
from midstep.vault.archive.format import check_format
from midstep.vault.archive.leases import Lease
from midstep.vault.archive.manifest import ArchivedSnapshot, decode, encode, log_sizes
from midstep.vault.archive.storing import store_trees
from midstep.vault.archive.trees import Tree, contents_of, restore_tree
from midstep.vault.backends.base import Backend
from midstep.vault.errors import (
    Damaged,
    Fenced,
    FormatUnknown,
    LeaseLost,
    ObjectExists,
    ObjectMissing,
    SnapshotMissing,
)
from midstep.vault.faults import pass_point
from midstep.vault.parts import Manifest
from midstep.vault.store.content import ChunkId, Progress, Stats
from midstep.vault.store.repository import Repository

SNAPSHOTS = "snapshots"
_PARTIAL = ".partial"

Report = Callable[[Progress], None]


class Archive:
    """One repository's snapshots. Threads may share one.

    Opening an empty place makes it an archive, if ``create``. FormatUnknown: another version of Midstep made
    it; VaultError: there is none; BackendError.
    """

    def __init__(
        self, backend: Backend, clock: Clock, ids: Ids, *, create: bool = True, workers: int | None = None
    ) -> None:
        self.backend, self.clock, self.ids = backend, clock, ids
        self._workers = workers
        self._swept = b""  # the last collection that `repository` knows of
        check_format(backend, create)

    @cached_property
    def repository(self) -> Repository:
        """The chunks. Opened when first needed: listing manifests needs none."""
        return Repository(self.backend, workers=self._workers)

    def reopen(self) -> None:
        """Forget what is known of the chunks, even of those written here: a collector may have come."""
        self.__dict__.pop("repository", None)

    def store(
        self,
        folder: Path,
        manifest: Manifest,
        generation: int,
        *,
        reason: str = "",
        versions: Mapping[str, str] | None = None,
        progress: Report | None = None,
    ) -> ArchivedSnapshot:
        """Archive a committed snapshot's folder; again: what is there already. ``generation``: the owner's.

        SnapshotIncomplete: the folder lacks something; Fenced; Busy; LeaseLost (again may help); OSError.
        """
        with contextlib.suppress(SnapshotMissing):
            return self._settled(self.load(manifest.snapshot_id), generation)
        pass_point("store:before")
        with Lease(self.backend, self.clock, self.ids) as lease:
            pass_point("store:leased")
            self.catch_up(lease)
            before = [it.trees for it in self.snapshots(manifest.job_id)][-1:] or [{}]
            with self.repository.writer(_renewing(lease, progress)) as writer:
                trees = store_trees(folder, manifest, writer, before[0])
                stats = writer.finish()
            pass_point("store:written")
            archived = self._archived(manifest, trees, generation, stats, reason, versions or {})
            kept = self.commit(archived, lease)
        pass_point("store:after")
        return kept

    def load(self, snapshot_id: str) -> ArchivedSnapshot:
        """A manifest. SnapshotMissing, ManifestDamaged, FormatUnknown."""
        name = object_name(snapshot_id)
        try:
            return decode(self.backend.get(name), name)
        except ObjectMissing:
            where = self.backend.describe()
            raise SnapshotMissing(f"snapshot {snapshot_id} is not in the archive {where}") from None

    def exists(self, snapshot_id: str) -> bool:
        """Whether a snapshot is committed here."""
        try:
            return self.backend.size(object_name(snapshot_id)) > 0
        except ObjectMissing:
            return False

    def snapshot_ids(self, job_id: str | None = None) -> list[str]:
        """All snapshots, or a job's, by name. A store whose lists lag may not show the last ones."""
        listed = self.backend.list(f"{SNAPSHOTS}/{job_id}" if job_id else SNAPSHOTS)
        return [info.name.rpartition("/")[2] for info in listed]

    def snapshots(self, job_id: str | None = None) -> Iterator[ArchivedSnapshot]:
        """Those that can be read, by job, the oldest of a job first."""
        found: list[ArchivedSnapshot] = []
        for snapshot_id in self.snapshot_ids(job_id):
            with contextlib.suppress(SnapshotMissing, Damaged, FormatUnknown):  # `check` names them
                found.append(self.load(snapshot_id))
        yield from sorted(found, key=lambda snapshot: (snapshot.job_id, snapshot.order))

    def restore(
        self,
        snapshot: ArchivedSnapshot,
        into: Path,
        names: Collection[str] | None = None,
        progress: Report | None = None,
    ) -> int:
        """Make folders (all, or those of these names: `rank-R`, `home-K`) below ``into``; one that is there
        stays. Returns their plain bytes. Each appears whole or not at all.

        Damaged: says what is, and of which snapshot; OSError.
        """
        wanted = sorted(snapshot.trees if names is None else set(names) & set(snapshot.trees))
        into.mkdir(parents=True, exist_ok=True)
        pass_point("restore:before")
        nbytes = 0
        for name in wanted:
            if not (into / name).exists():
                self._restore_tree(snapshot, name, into, progress)
                nbytes += sum(content.size for content in contents_of(snapshot.trees[name]))
            pass_point("restore:midway")
        pass_point("restore:written")
        return nbytes

    def forget(self, snapshot_id: str) -> None:
        """Remove a manifest; its chunks go with the next collection. Harmless when there is none."""
        self.backend.delete(object_name(snapshot_id))

    def _restore_tree(self, snapshot: ArchivedSnapshot, name: str, into: Path, report: Report | None) -> None:
        partial = into / (name + _PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        try:
            restore_tree(
                snapshot.trees[name], partial, lambda files: self.repository.read_many(files, report)
            )
        except Damaged as error:
            raise Damaged(
                f"snapshot {snapshot.snapshot_id} cannot be restored, {name} is damaged: {error}; an older "
                "snapshot of the job may be whole, and `midstep vault check --deep` names all that is damaged"
            ) from error
        os.rename(partial, into / name)

    def _archived(
        self,
        manifest: Manifest,
        trees: Mapping[str, Tree],
        generation: int,
        stats: Stats,
        reason: str,
        versions: Mapping[str, str],
    ) -> ArchivedSnapshot:
        return ArchivedSnapshot(
            manifest,
            trees,
            generation,
            self.clock.now_s(),
            reason,
            log_sizes(trees),
            dict(versions),
            sum(content.size for tree in trees.values() for content in contents_of(tree)),
            stats.new_bytes,
            stats.stored_bytes,
        )

    def commit(self, archived: ArchivedSnapshot, lease: Lease) -> ArchivedSnapshot:
        """Write the manifest of a snapshot whose chunks are all there, unless the job has another owner or a
        collector took us for dead. Both may come about just after the look: so there is a second one, and
        what must not stay is taken back. Fenced, LeaseLost."""
        fence.check(self.backend, archived.job_id, archived.generation)
        self._make_sure(archived, lease)
        pass_point("commit:before")
        try:
            self.backend.create(object_name(archived.snapshot_id), encode(archived))
        except ObjectExists:
            return self._settled(self.load(archived.snapshot_id), archived.generation)
        pass_point("commit:after")
        try:
            fence.check(self.backend, archived.job_id, archived.generation)
            self._make_sure(archived, lease)
        except (Fenced, LeaseLost):
            self.forget(archived.snapshot_id)
            raise
        return archived

    def _settled(self, there: ArchivedSnapshot, generation: int) -> ArchivedSnapshot:
        """A snapshot of that id is there: ours, of an owner before us, or of one that came after us."""
        if there.generation > generation:
            fence.check(self.backend, there.job_id, generation)
            raise Fenced(f"snapshot {there.snapshot_id} was archived by owner {there.generation} of its job")
        return there

    def catch_up(self, lease: Lease) -> None:
        """Know what others have stored and collected until the lease began."""
        if self._swept != lease.sweep:
            self._swept = lease.sweep
            self.reopen()
        self.repository.refresh()

    def _make_sure(self, archived: ArchivedSnapshot, lease: Lease) -> None:
        if lease.undisturbed():
            return
        self.reopen()
        if gone := lost_chunks(self, set(archived.ids())):
            raise LeaseLost(
                f"{len(gone)} chunks of snapshot {archived.snapshot_id} were collected while it was stored, "
                "because its writer was silent for too long: store it again"
            )


def lost_chunks(archive: Archive, wanted: Collection[ChunkId]) -> set[ChunkId]:
    """Those of these chunks that no index knows, or whose pack is gone or cut."""
    gone = archive.repository.missing(wanted)
    sizes = {info.name: info.size for info in archive.backend.list("packs")}
    short = {pack.name for pack in archive.repository.packs() if sizes.get(pack.name) != pack.size}
    for chunk in set(wanted) - gone:
        stored = archive.repository.find(chunk)
        if stored is None or stored.pack in short:
            gone.add(chunk)
    return gone


def object_name(snapshot_id: str) -> str:
    """Of a snapshot's manifest. Ids are made of the job's and a number: `j-7f3a2c-3`."""
    return f"{SNAPSHOTS}/{job_of(snapshot_id)}/{snapshot_id}"


def job_of(snapshot_id: str) -> str:
    """The job that a snapshot is of."""
    return snapshot_id.rpartition("-")[0] or "_"


def _renewing(lease: Lease, report: Report | None) -> Report:
    def tell(progress: Progress) -> None:
        with contextlib.suppress(LeaseLost):  # found again before the commit
            lease.renew()
        if report is not None:
            report(progress)

    return tell
