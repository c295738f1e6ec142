"""Objects as files below a folder: a disk, or a file system that several machines mount.

    ROOT/packs/3f/9a...     an object, under its name
    ROOT/.tmp/...           being written; no object's name begins with "."

A file is written whole and brought to disk before it gets its name, by a rename (`put`) or a hard link
(`create`: fails if the name is taken, also between machines). Who writes holds a lock on the temporary file,
so what a killed writer left is known by being free, whatever any clock says, and `sweep` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from midstep.vault.backends.base import Buffer, ObjectInfo, as_bytes, check_folder, check_name, end_of
from midstep.vault.backends.local_errors import explained
from midstep.vault.errors import ObjectExists, ObjectMissing, ObjectTorn

Result = TypeVar("Result")
_MODE = 0o700  # snapshots hold the memory of jobs: nobody else's business


class LocalBackend:
    """A folder, made by the first write."""

    forks = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / ".tmp"
        self._known: frozenset[Path] = frozenset()  # folders known to be on disk

    def put(self, name: str, data: Buffer) -> None:
        target = self.root / check_name(name)
        with explained(name, self.root), self._written(data) as temporary:
            self._in_folder(target.parent, lambda: os.replace(temporary, target))
            _sync(target.parent)

    def create(self, name: str, data: Buffer) -> None:
        target = self.root / check_name(name)
        with explained(name, self.root), self._written(data) as temporary:
            try:
                self._in_folder(target.parent, lambda: os.link(temporary, target))
            except FileExistsError:
                raise ObjectExists(f"object {name} exists already in {self.describe()}") from None
            os.unlink(temporary)
            _sync(target.parent)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with explained(name, self.root), self._opened(name) as descriptor:
            end = end_of(name, start, length, os.fstat(descriptor).st_size)
            return _read(descriptor, name, start, end)

    def size(self, name: str) -> int:
        with explained(name, self.root), self._opened(name) as descriptor:
            return os.fstat(descriptor).st_size

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = check_folder(prefix)
        with explained(f"below {folder or 'its root'}", self.root):
            return iter(sorted(_files(str(self.root / folder), folder)))

    def delete(self, name: str) -> None:
        path = self.root / check_name(name)
        with explained(name, self.root):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                return
            _sync(path.parent)

    def describe(self) -> str:
        return str(self.root)

    def sweep(self) -> list[Path]:
        """Remove what killed writers left; what is being written stays, whoever writes it. Returns what
        went."""
        with explained("temporary files", self.root):
            left = sorted(self._temporary.iterdir()) if self._temporary.exists() else []
            return [path for path in left if _remove_if_free(path)]

    @contextlib.contextmanager
    def _written(self, data: Buffer) -> Generator[str]:
        """A temporary file that holds the data, on disk; removed at the end unless it was renamed."""
        descriptor, path = self._temporary_file()
        try:
            _write(descriptor, as_bytes(data))
            os.fsync(descriptor)
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(descriptor)

    def _temporary_file(self) -> tuple[int, str]:
        while True:
            descriptor, path = self._in_folder(self._temporary, lambda: tempfile.mkstemp(dir=self._temporary))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor, path
            os.close(descriptor)  # swept between making and locking

    def _in_folder(self, folder: Path, action: Callable[[], Result]) -> Result:
        self._ready(folder)
        try:
            return action()
        except FileNotFoundError:  # somebody removed folders
            self._known = frozenset()
            self._ready(folder)
            return action()

    def _ready(self, folder: Path) -> None:
        """Have a folder and those above it, all on disk; once per folder, also where another process made
        it."""
        if folder in self._known:
            return
        if folder != self.root:
            self._ready(folder.parent)
        folder.mkdir(_MODE, parents=True, exist_ok=True)
        _sync(folder.parent)
        self._known = self._known | {folder}  # another set: threads read the old one

    @contextlib.contextmanager
    def _opened(self, name: str) -> Generator[int]:
        try:
            descriptor = os.open(self.root / check_name(name), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"there is no object {name} in {self.describe()}") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _files(folder: str, prefix: str) -> Iterator[ObjectInfo]:
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, f"{prefix}{entry.name}/")
        else:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield ObjectInfo(prefix + entry.name, entry.stat().st_size)


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, name: str, start: int, end: int) -> bytes:
    pieces: list[bytes] = []
    while start < end:  # one read of the kernel ends at 2 GiB
        if not (piece := os.pread(descriptor, end - start, start)):
            raise ObjectTorn(f"object {name} ended at byte {start} while it was read: it was cut short")
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
