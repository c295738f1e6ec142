"""A region's snapshots, as folders of whole files.

    ROOT/snapshots/ID.partial/          being written: agents put their parts here
        rank-R/                         one rank's process images
        home-K/                         one home's tree (work, tmp, shm, logs, run)
        part-I.json                     written last by node I of the job: what its part holds
    ROOT/snapshots/ID/manifest.json     committed: all parts verified, manifest written, folder renamed
    ROOT/results/JOB/home-K/            what an ended job left

A reader sees a whole snapshot or none: the rename of the folder is the commit. It waits for no disk, so that
nobody stands still meanwhile; `flush`, soon after, does. A machine that loses power in between may keep a
torn snapshot: `verify`, before every use, compares each file's size with what its writer noted (file systems
that order data before sizes, as ext4 and XFS do, show a file at its full length only with its content).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from midstep.vault.errors import SnapshotExists, SnapshotIncomplete, SnapshotMissing

_PARTIAL = ".partial"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One node's share of a snapshot. ``frozen`` is the freeze driver's record of each rank, as JSON."""

    index: int
    ranks: tuple[int, ...]
    homes: tuple[int, ...]
    nbytes: int
    files: dict[str, int]  # path below the snapshot -> size: what commit verifies
    frozen: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed snapshot: the job at one cut. ``store``: key -> base64 value of the rendezvous store."""

    snapshot_id: str
    job_id: str
    epoch: int
    parts: tuple[Part, ...]
    store: dict[str, str]
    format: int = FORMAT

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)


class Snapshots:
    """The snapshots and results of one region, in a folder that its nodes and its controller share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._snapshots = root / "snapshots"
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
        self, snapshot_id: str, job_id: str, epoch: int, nodes: int, store: dict[str, str]
    ) -> Manifest:
        """Verify all parts and make the snapshot visible. Doing it again is harmless.

        Raises SnapshotIncomplete: a part or a file of it is missing; nothing is visible then.
        """
        if self.exists(snapshot_id):
            return self.manifest(snapshot_id)
        folder = self._snapshots / (snapshot_id + _PARTIAL)
        parts = tuple(_verified_part(folder, index) for index in range(nodes))
        manifest = Manifest(snapshot_id, job_id, epoch, parts, store)
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
        """The manifest of a committed snapshot whose files are all there, each of its size. SnapshotMissing,
        SnapshotIncomplete."""
        manifest = self.manifest(snapshot_id)
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
        """Whether a snapshot is committed here."""
        return (self._snapshots / snapshot_id / "manifest.json").exists()

    def manifest(self, snapshot_id: str) -> Manifest:
        """The manifest of a committed snapshot; raises SnapshotMissing."""
        return _read_manifest(self.path(snapshot_id) / "manifest.json", snapshot_id)

    def path(self, snapshot_id: str) -> Path:
        """The folder of a committed snapshot; raises SnapshotMissing."""
        if not self.exists(snapshot_id):
            raise SnapshotMissing(f"snapshot {snapshot_id} is not in the vault {self.root}")
        return self._snapshots / snapshot_id

    def delete(self, snapshot_id: str) -> None:
        """Remove a snapshot, committed or not. Harmless when it is not there."""
        committed, partial = self._snapshots / snapshot_id, self._snapshots / (snapshot_id + _PARTIAL)
        if committed.exists():
            os.rename(committed, partial)  # invisible at once, then removed at leisure
        shutil.rmtree(partial, ignore_errors=True)

    def committed(self) -> Iterator[Manifest]:
        """All committed snapshots, by id."""
        for folder in sorted(self._snapshots.iterdir()):
            if not folder.name.endswith(_PARTIAL):
                yield self.manifest(folder.name)

    def ids(self) -> list[str]:
        """Everything that is here, committed or not."""
        return sorted({folder.name.removesuffix(_PARTIAL) for folder in self._snapshots.iterdir()})

    def results(self, job_id: str) -> Path:
        """Where an ended job's homes are kept."""
        return self.root / "results" / job_id


def _read_manifest(path: Path, snapshot_id: str) -> Manifest:
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise SnapshotMissing(f"snapshot {snapshot_id} has no manifest at {path}") from None
    except ValueError:
        raise SnapshotIncomplete(f"the manifest of snapshot {snapshot_id} is torn ({path})") from None
    parts = tuple(_part(part) for part in raw["parts"])
    return Manifest(raw["snapshot_id"], raw["job_id"], raw["epoch"], parts, raw["store"], raw["format"])


def _part(raw: dict[str, object]) -> Part:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return Part(**values)  # pyright: ignore[reportArgumentType]


def _verified_part(folder: Path, index: int) -> Part:
    path = folder / f"part-{index}.json"
    if not path.exists():
        raise SnapshotIncomplete(
            f"part {index} of snapshot {folder.name.removesuffix(_PARTIAL)} was not written"
        )
    part = _part(json.loads(path.read_text()))
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
