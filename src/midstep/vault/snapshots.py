"""A region's snapshots: the face to agents and controller.

    ROOT/snapshots/ID.partial/          being written: agents put their parts here
        rank-R/                         one rank's process images
        home-K/                         one home's tree (work, tmp, shm, logs, run)
        part-I.json                     written last by node I of the job: what its part holds
    ROOT/snapshots/ID/manifest.json     committed: all parts verified, manifest written, folder renamed
    ROOT/archive/                       places.py: where committed snapshots are archived by and by
    ROOT/restored/ID/                   folders of an archived snapshot that has no raw folder any more
    ROOT/results/JOB/home-K/            what an ended job left

A reader sees a whole snapshot or none: the rename of the folder is the commit. It waits for no disk, so that
nobody stands still meanwhile; `flush`, soon after, does. A machine that loses power in between may keep a
torn snapshot: `verify`, before every use, compares each file's size with what its writer noted (file systems
that order data before sizes, as ext4 and XFS do, show a file at its full length only with its content).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midstep.vault.errors import SnapshotExists, SnapshotIncomplete, SnapshotMissing, VaultError
from midstep.vault.faults import pass_point
from midstep.vault.parts import FORMAT, Manifest, Part, manifest_of, part_of

if TYPE_CHECKING:
    from midstep.vault.archive.archive import Archive
    from midstep.vault.store.content import Progress

__all__ = ["FORMAT", "Manifest", "Part", "Snapshots"]

_PARTIAL = ".partial"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Snapshots:
    """The snapshots and results of one region, in a folder that its nodes and its controller share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._snapshots = root / "snapshots"
        self._restored = root / "restored"
        self._archive: Archive | None = None
        self._snapshots.mkdir(parents=True, exist_ok=True)
        (root / "results").mkdir(exist_ok=True)

    def stage(self, snapshot_id: str) -> Path:
        """The folder that takes the parts of a snapshot not committed yet."""
        if (self._snapshots / snapshot_id).exists():
            raise SnapshotExists(f"snapshot {snapshot_id} is committed already")
        path = self._snapshots / (snapshot_id + _PARTIAL)
        path.mkdir(exist_ok=True)
        return path

    def put_part(self, snapshot_id: str, part: Part) -> None:
        """Say that a node's part is whole. Call it after everything of the part is written."""
        _write_json(self.stage(snapshot_id) / f"part-{part.index}.json", asdict(part))

    def commit(
        self,
        snapshot_id: str,
        job_id: str,
        epoch: int,
        nodes: int,
        store: dict[str, str],
        job: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Verify all parts and make the snapshot visible. Doing it again is harmless. ``job``: as in
        `Manifest`.

        Raises SnapshotIncomplete: a part or a file of it is missing; nothing is visible then.
        """
        if self.exists(snapshot_id):
            return self.manifest(snapshot_id)
        folder = self._snapshots / (snapshot_id + _PARTIAL)
        parts = tuple(_verified_part(folder, index) for index in range(nodes))
        manifest = Manifest(snapshot_id, job_id, epoch, parts, store, job=dict(job or {}))
        _write_json(folder / "manifest.json", asdict(manifest))
        os.rename(folder, self._snapshots / snapshot_id)
        return manifest

    def flush(self, snapshot_id: str) -> None:
        """Have a committed snapshot outlive a loss of power from here on. OSError: the disk does not take it;
        harmless when the snapshot is removed meanwhile."""
        folder = self._snapshots / snapshot_id
        for base, _, names in os.walk(folder, topdown=False):
            for path in (*(os.path.join(base, name) for name in names), base):
                if not os.path.islink(path) and (os.path.isfile(path) or os.path.isdir(path)):
                    _sync(path)
        _sync(self._snapshots)

    def verify(self, snapshot_id: str) -> Manifest:
        """The manifest of a snapshot that has a folder here, and whose files are all there, each of its size
        (what was restored from the archive was verified by content). SnapshotMissing, SnapshotIncomplete."""
        manifest = self.manifest(snapshot_id)
        if self.is_raw(snapshot_id):
            for part in manifest.parts:
                _check_files(self._snapshots / snapshot_id, part)
        return manifest

    def adopt(self, snapshot_id: str) -> None:
        """Commit a staged folder that already holds a manifest (a copy from another region)."""
        folder = self._snapshots / (snapshot_id + _PARTIAL)
        manifest = _read_manifest(folder / "manifest.json", snapshot_id)
        for part in manifest.parts:
            _verified_part(folder, part.index)
        os.rename(folder, self._snapshots / snapshot_id)

    def exists(self, snapshot_id: str) -> bool:
        """Whether a committed snapshot has a folder here, raw or restored."""
        return self.is_raw(snapshot_id) or (self._restored / snapshot_id / "manifest.json").exists()

    def is_raw(self, snapshot_id: str) -> bool:
        """Whether the folder that the agents wrote is here."""
        return (self._snapshots / snapshot_id / "manifest.json").exists()

    def is_archived(self, snapshot_id: str) -> bool:
        """Whether it is in the archive. BackendError: the archive does not answer."""
        return (archive := self.archive()) is not None and archive.exists(snapshot_id)

    def manifest(self, snapshot_id: str) -> Manifest:
        """The manifest of a committed snapshot; raises SnapshotMissing."""
        return _read_manifest(self.path(snapshot_id) / "manifest.json", snapshot_id)

    def path(self, snapshot_id: str) -> Path:
        """The folder of a committed snapshot. SnapshotMissing: it has none here; one that is archived gets
        one by `materialise`."""
        if self.is_raw(snapshot_id):
            return self._snapshots / snapshot_id
        if self.exists(snapshot_id):
            return self._restored / snapshot_id
        raise SnapshotMissing(f"snapshot {snapshot_id} is not in the vault {self.root}")

    def materialise(
        self,
        snapshot_id: str,
        ranks: Collection[int] | None = None,
        homes: Collection[int] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> int:
        """Have a folder with these ranks' images and homes' trees (None: all), from the archive if need be;
        returns the plain bytes brought back. One at a time in a region.

        SnapshotMissing: neither here nor archived; Damaged: it cannot be had whole, another one may; OSError.
        """
        with _locked(self.root / "locks" / f"{snapshot_id}.restore"):
            archive = None if self.is_raw(snapshot_id) else self.archive()
            if archive is None:
                self.path(snapshot_id)
                return 0
            archived = archive.load(snapshot_id)
            folder = self._restored / snapshot_id
            if _boot_of(folder) != _boot():  # restored before a loss of power: not on disk, perhaps
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            _write_json(folder / "boot.json", {"boot": _boot()})
            wanted = None
            if ranks is not None and homes is not None:
                wanted = {*(f"rank-{rank}" for rank in ranks), *(f"home-{home}" for home in homes)}
            nbytes = archive.restore(archived, folder, wanted, progress)
            for part in archived.manifest.parts:
                _write_json(folder / f"part-{part.index}.json", asdict(part))
            _write_json(folder / "manifest.json", asdict(archived.manifest))
            pass_point("restore:after")
            return nbytes

    def archive(self, *, create: bool = False) -> Archive | None:
        """The region's archive; None: there is none yet. VaultError."""
        if self._archive is None:
            from midstep.vault.places import (
                SETTINGS,
                open_archive,
                place_of,
            )  # libraries that few agents need

            place = place_of(self.root)
            if not create and place.folder is not None and not place.folder.is_dir():
                return None
            try:
                self._archive = open_archive(place, create=True)
            except ValueError as error:
                raise VaultError(f"{self.root / SETTINGS}: {error}") from None
        return self._archive

    def delete(self, snapshot_id: str) -> None:
        """Remove a snapshot's folders, committed or not; the archive keeps what it has. Harmless when there
        are none."""
        self.hide(snapshot_id)
        for folder in (self._snapshots, self._restored):
            shutil.rmtree(folder / (snapshot_id + _PARTIAL), ignore_errors=True)

    def hide(self, snapshot_id: str) -> None:
        """Take a snapshot's folders out of the way: at once, so that nobody can begin to read them. `delete`
        then removes them."""
        for folder in (self._snapshots, self._restored):
            with contextlib.suppress(FileNotFoundError):
                committed, partial = folder / snapshot_id, folder / (snapshot_id + _PARTIAL)
                if committed.exists():
                    shutil.rmtree(partial, ignore_errors=True)
                    os.rename(committed, partial)

    def committed(self) -> Iterator[Manifest]:
        """All committed snapshots that have a raw folder, by id."""
        for folder in sorted(self._snapshots.iterdir()):
            if not folder.name.endswith(_PARTIAL):
                yield self.manifest(folder.name)

    def ids(self) -> list[str]:
        """Everything that has a folder here, committed or not."""
        folders = [*self._snapshots.iterdir(), *(self._restored.iterdir() if self._restored.exists() else ())]
        return sorted({folder.name.removesuffix(_PARTIAL) for folder in folders})

    def results(self, job_id: str) -> Path:
        """Where an ended job's homes are kept."""
        return self.root / "results" / job_id


def _read_manifest(path: Path, snapshot_id: str) -> Manifest:
    try:
        return manifest_of(json.loads(path.read_text()))
    except FileNotFoundError:
        raise SnapshotMissing(f"snapshot {snapshot_id} has no manifest at {path}") from None
    except ValueError:
        raise SnapshotIncomplete(f"the manifest of snapshot {snapshot_id} is torn ({path})") from None


def _verified_part(folder: Path, index: int) -> Part:
    path = folder / f"part-{index}.json"
    if not path.exists():
        raise SnapshotIncomplete(
            f"part {index} of snapshot {folder.name.removesuffix(_PARTIAL)} was not written"
        )
    part = part_of(json.loads(path.read_text()))
    _check_files(folder, part)
    return part


def _check_files(folder: Path, part: Part) -> None:
    for name, size in part.files.items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            found = -1
        if found != size:
            raise SnapshotIncomplete(f"{folder / name} has {found} bytes instead of {size}")


def _write_json(path: Path, value: object) -> None:
    """Write beside, rename: a kill leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    os.rename(temporary, path)


def _sync(path: str | Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _boot_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "boot.json").read_text())["boot"])
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """The kernel frees it when its holder is killed."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
