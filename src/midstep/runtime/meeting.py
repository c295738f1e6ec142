"""Small files in a home's shared memory where its ranks meet: made once, mapped by all.

A rank may be frozen, dumped and restored at any instant: what is in such memory moves with the home.
"""

from __future__ import annotations

import os
from typing import Callable, Optional

from .splice.maps import map_shared, unmap


def open_once(path: str, nbytes: int, who: str, begin: Callable[[int], None]) -> int:
    """Map a file of this size, writable by all; the first to come makes it. Answers its address.

    ``who`` is this rank's alone; ``begin`` gets the address of the new, zeroed memory. Raises OSError.
    """
    fd = _try_open(path)
    if fd is None:
        _make(path, nbytes, "%s.%s" % (path, who), begin)
        fd = _try_open(path)
    if fd is None:
        raise FileNotFoundError(path)
    try:
        return map_shared(fd, nbytes)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file that may be gone."""
    try:
        os.unlink(path)
    except OSError:
        pass


def _make(path: str, nbytes: int, draft: str, begin: Callable[[int], None]) -> None:
    made = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(made, 0, nbytes)
        base = map_shared(made, nbytes)
        begin(base)
        unmap(base, nbytes)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        os.close(made)
        remove(draft)


def _try_open(path: str) -> Optional[int]:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
