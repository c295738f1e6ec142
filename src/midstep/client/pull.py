"""A job's files on their way back: unpacked beside the place first, then put in place one by one."""

from __future__ import annotations

import filecmp
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from midstep.client.errors import FleetFault, LocalProblem
from midstep.client.fleet import FleetClient

OTHER_HOME = re.compile(r"home-\d+")


@dataclass(slots=True)
class Pulled:
    """What was done with each file; paths relative to the destination. ``kept``: those here that were left
    alone because they are not the job's to overwrite. ``refused``: links that lead out of the work
    directory."""

    written: list[str] = field(default_factory=list[str])
    same: int = 0
    kept: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])


def pull(
    fleet: FleetClient,
    job: str,
    destination: Path,
    may_replace: Callable[[str], bool],
    wanted: Callable[[str], bool] = lambda _: True,
    drop_copies: bool = False,
) -> Pulled:
    """Bring a job's work directory here. ``may_replace`` is asked for every file that is here and differs;
    ``wanted`` for every file. LocalProblem: cannot be written."""
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination, prefix=".midstep-pull-") as scratch:
            refused = _unpack(fleet, job, Path(scratch))
            if drop_copies:
                _drop_copies(Path(scratch), destination)
            pulled = _place(Path(scratch), destination, may_replace, wanted)
            pulled.refused = refused
            return pulled
    except OSError as error:
        raise LocalProblem(f"{error.filename or destination}: {error.strerror or error}") from None


def _unpack(fleet: FleetClient, job: str, into: Path) -> list[str]:
    """Answers what was refused: names and links that lead out of the folder, devices."""
    refused: list[str] = []
    with fleet.files(job) as pieces:
        try:
            with tarfile.open(fileobj=io.BufferedReader(_Pieces(pieces)), mode="r|*") as tar:
                for member in tar:
                    try:
                        tar.extract(member, into, filter="data")
                    except tarfile.FilterError:
                        refused.append(member.name)
        except tarfile.TarError as error:
            raise FleetFault(f"the files of job {job} cannot be unpacked: {error}") from None
    return refused


def _drop_copies(scratch: Path, destination: Path) -> None:
    """Of a job on several nodes: forget the files of the others that are as the first node's, or as those
    here."""
    for home in scratch.iterdir():
        if not OTHER_HOME.fullmatch(home.name):
            continue
        for path in [p for p in home.rglob("*") if p.is_symlink() or p.is_file()]:
            relative = path.relative_to(home)
            if _equal(path, scratch / relative) or _equal(path, destination / relative):
                path.unlink()


def _place(
    scratch: Path, destination: Path, may_replace: Callable[[str], bool], wanted: Callable[[str], bool]
) -> Pulled:
    pulled = Pulled()
    for folder, _, names in os.walk(scratch):
        relative_folder = Path(folder).relative_to(scratch)
        for name in sorted(names):
            relative = (relative_folder / name).as_posix()
            if not wanted(relative):
                continue
            source, target = scratch / relative, destination / relative
            if _equal(source, target):
                pulled.same += 1
            elif os.path.lexists(target) and not may_replace(relative):
                pulled.kept.append(relative)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)
                pulled.written.append(relative)
    return pulled


def _equal(a: Path, b: Path) -> bool:
    if a.is_symlink() or b.is_symlink():
        return a.is_symlink() and b.is_symlink() and a.readlink() == b.readlink()
    return b.is_file() and filecmp.cmp(a, b, shallow=False)


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
