"""A work directory on its way to the fleet: which files, how large, packed into one archive."""

from __future__ import annotations

import functools
import gzip
import os
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from midstep.client.errors import LocalProblem
from midstep.client.ignore import FILE, Ignore

MAX_BYTES = 1 << 30
MAX_FILES = 100_000
SPOOL_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link; ``path`` is relative, with slashes."""

    path: str
    nbytes: int
    mtime_ns: int
    kind: str  # file, folder, link


@dataclass(frozen=True)
class Listing:
    """What goes with the job, in order of path. Files here are compared with it when the job's come back."""

    root: Path
    entries: tuple[Entry, ...]
    ignore: Ignore

    @functools.cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {e.path: e for e in self.entries}

    @property
    def nbytes(self) -> int:
        """Of all files, not packed."""
        return sum(e.nbytes for e in self.entries)

    def unchanged(self, path: str) -> bool:
        """The file here is still what was sent (or was not there then, and is not now)."""
        known = self._by_path.get(path)
        try:
            now = (self.root / path).lstat()
        except OSError:
            return known is None
        return known is not None and (now.st_size, now.st_mtime_ns) == (known.nbytes, known.mtime_ns)


def scan(root: Path, max_bytes: int = MAX_BYTES) -> Listing:
    """List a work directory. LocalProblem: it is no folder, unreadable, or too large; then its largest
    entries are named."""
    if not root.is_dir():
        raise LocalProblem(f"the work directory {root} is not a folder", "name one with --workdir")
    entries: list[Entry] = []
    total = 0
    ignore = Ignore.of(root)
    for entry in _walk(root, ignore):
        entries.append(entry)
        total += entry.nbytes
        if total > max_bytes or len(entries) > MAX_FILES:
            raise _too_large(root, entries, max_bytes)
    return Listing(root, tuple(sorted(entries, key=lambda e: e.path)), ignore)


def pack(listing: Listing) -> tuple[IO[bytes], int]:
    """The archive (.tar.gz) in a temporary file, at its beginning, and its size in bytes. The same files give
    the same bytes. LocalProblem: a file cannot be read."""
    archive: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  (the caller's)
    try:
        with gzip.GzipFile(fileobj=archive, mode="wb", compresslevel=1, mtime=0, filename="") as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for entry in listing.entries:
                    tar.add(listing.root / entry.path, entry.path, recursive=False, filter=_anonymous)
    except OSError as error:
        raise LocalProblem(f"{error.filename or listing.root}: {error.strerror or error}") from None
    nbytes = archive.tell()
    archive.seek(0)
    return archive, nbytes


def _walk(root: Path, ignore: Ignore) -> Iterator[Entry]:
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            found = sorted(os.scandir(root / folder), key=lambda item: item.name)
        except OSError as error:
            raise LocalProblem(
                f"{error.filename}: {error.strerror}", f"list it in {FILE} to leave it out"
            ) from None
        for item in found:
            path = f"{folder}/{item.name}" if folder else item.name
            if ignore(path, item.is_dir(follow_symlinks=False)):
                continue
            entry = _entry(path, item.stat(follow_symlinks=False))
            if entry is not None:
                yield entry
                if entry.kind == "folder":
                    pending.append(path)


def _entry(path: str, status: os.stat_result) -> Entry | None:
    if stat.S_ISREG(status.st_mode):
        return Entry(path, status.st_size, status.st_mtime_ns, "file")
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, 0, status.st_mtime_ns, "folder")
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, 0, status.st_mtime_ns, "link")
    return None  # sockets, pipes and devices mean nothing elsewhere


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _too_large(root: Path, entries: list[Entry], max_bytes: int) -> LocalProblem:
    sizes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for entry in entries:
        top = entry.path.partition("/")[0]
        sizes[top] += entry.nbytes
        files[top] += 1
    if len(entries) > MAX_FILES:
        largest = ", ".join(f"{name} ({n} files)" for name, n in files.most_common(5))
        message = f"the work directory {root} has more than {MAX_FILES} files; most are in: {largest}"
    else:
        largest = ", ".join(f"{name} ({_mb(n)})" for name, n in sizes.most_common(5))
        message = f"the work directory {root} is larger than {_mb(max_bytes)}; the largest so far: {largest}"
    return LocalProblem(
        message, f"list what the job does not need in {FILE}, or name another folder with --workdir"
    )


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.0f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} kB"
