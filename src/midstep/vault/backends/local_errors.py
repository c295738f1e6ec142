"""What an OSError of a folder means for a vault, and what to do about it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator
from pathlib import Path

from midstep.vault.errors import BackendDenied, BackendError, BackendFull, BackendUnreachable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG}
_NO_LINKS = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# what a mounted file system says while its server is away, and a machine that is short for the moment
_AWAY = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EBUSY,
}


@contextlib.contextmanager
def explained(what: str, root: Path) -> Generator[None]:
    """Errors of the system as errors of the vault."""
    try:
        yield
    except OSError as error:
        raise _meaning(error, what, root) from error


def _meaning(error: OSError, what: str, root: Path) -> BackendError:
    said = f"{os.strerror(error.errno)}" if error.errno else str(error)
    where = f"object {what} in the vault {root}"
    if error.errno in _FULL:
        return BackendFull(
            f"no space for {where}{_space(root)} ({said}): nothing of it is kept; make room in that file "
            f"system "
            "or raise the quota (`midstep vault gc` removes what no snapshot needs), then try again"
        )
    if error.errno in _NO_LINKS:
        return BackendDenied(
            f"{where}: this file system has no hard links ({said}), which keep two writers apart: use "
            f"another one"
        )
    if error.errno in _DENIED:
        return BackendDenied(
            f"{where}: {said} ({error.filename or root}): check owner, mode and mount of the folder"
        )
    if error.errno in _AWAY:
        return BackendUnreachable(
            f"{where}: {said}: the disk or the file system's server does not answer as it should"
        )
    if error.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
        return BackendError(
            f"{where}: {said} ({error.filename}): something that is no object of ours is in its place"
        )
    return BackendError(f"{where}: {said} ({error.filename or root})")


def _space(root: Path) -> str:
    try:
        state = os.statvfs(root)
    except OSError:
        return ""
    return f", {state.f_bavail * state.f_frsize // 2**20} MiB free"
