"""Copy a home: everything that a program can tell apart afterwards stays as it is, holes and hard links
included.

Times are restored to the nanosecond because build tools and caches compare them. Sockets are skipped: CRIU
makes those that a rank still listens on, and the others are dead. A file that vanishes while we walk is
skipped as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.drivers.errors import TooSlow

_FICLONE = 0x40049409
_CHUNK_BYTES = 1 << 30
_NO_SUCH_CALL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Copied:
    files: int
    bytes: int  # of data, holes not counted
    duration_s: float


def copy_tree(src: Path, dst: Path, deadline_s: float | None = None) -> Copied:
    """Make `dst` hold what `src` holds; what is there already under other names stays. OSError, TooSlow:
    half a copy is left.
    """
    begun = time.monotonic()
    copy = _Copy(None if deadline_s is None else begun + deadline_s)
    os.makedirs(dst, exist_ok=True)
    copy.folder(os.fspath(src), os.fspath(dst))
    return Copied(copy.files, copy.bytes, time.monotonic() - begun)


class _Copy:
    def __init__(self, end: float | None) -> None:
        self.end = end
        self.files = 0
        self.bytes = 0
        self.linked: dict[tuple[int, int], str] = {}

    def folder(self, src: str, dst: str) -> None:
        info = os.stat(src)
        with os.scandir(src) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                with contextlib.suppress(FileNotFoundError):
                    self._entry(entry.path, os.path.join(dst, entry.name))
        _attributes(src, dst, info)  # last: what is made inside changes its times

    def _entry(self, src: str, dst: str) -> None:
        if self.end is not None and time.monotonic() > self.end:
            raise TooSlow(f"the files of the job were not copied in time: at {src} after {self.bytes} bytes")
        info = os.lstat(src)
        if stat.S_ISDIR(info.st_mode):
            if not os.path.isdir(dst) or os.path.islink(dst):
                _clear(dst)
                os.mkdir(dst, 0o700)
            self.folder(src, dst)
        elif not stat.S_ISSOCK(info.st_mode):
            _clear(dst)
            self._file(src, dst, info)

    def _file(self, src: str, dst: str, info: os.stat_result) -> None:
        self.files += 1
        key = (info.st_dev, info.st_ino)
        if info.st_nlink > 1 and key in self.linked:
            os.link(self.linked[key], dst, follow_symlinks=False)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(src), dst)
        elif stat.S_ISREG(info.st_mode):
            self.bytes += _copy_data(src, dst, info.st_size)
        else:
            os.mknod(dst, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)
        _attributes(src, dst, info)
        if info.st_nlink > 1:
            self.linked[key] = dst


def _copy_data(src: str, dst: str, size: int) -> int:
    """Share the blocks where the file system can, else copy what is not a hole; returns the bytes."""
    source = os.open(src, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        target = os.open(dst, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with contextlib.suppress(OSError):
                fcntl.ioctl(target, _FICLONE, source)
                return size
            return sum(
                _copy_range(source, target, start, end) for start, end in _extents(source, size, target)
            )
        finally:
            os.close(target)
    finally:
        os.close(source)


def _extents(source: int, size: int, target: int) -> list[tuple[int, int]]:
    """Where there is data. The target gets its full size at once, so that what is not written is a hole."""
    os.ftruncate(target, size)
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            return [(0, size)]
        at = os.lseek(source, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


def _copy_range(source: int, target: int, start: int, end: int) -> int:
    at = start
    while at < end:
        count = _copy_some(source, target, at, min(end - at, _CHUNK_BYTES))
        if count == 0:
            break
        at += count
    return at - start


def _copy_some(source: int, target: int, at: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, at, count)


def _attributes(src: str, dst: str, info: os.stat_result) -> None:
    os.chown(dst, info.st_uid, info.st_gid, follow_symlinks=False)
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(src, follow_symlinks=False):
            os.setxattr(dst, name, os.getxattr(src, name, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(dst, stat.S_IMODE(info.st_mode))
    os.utime(dst, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _clear(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
