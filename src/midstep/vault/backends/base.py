"""The contract of every place that keeps objects: a folder, memory, a bucket.

An object is some bytes under a name. Names are folders and a last name, joined by "/"; each of them is made
of letters, digits, "-", "_" and ".", and does not begin with ".". A name is not also a folder of another one.

What every backend guarantees (`tests/vault/backends/` has the suite that all of them run):

1. **Whole or not at all.** Whoever reads while somebody writes, and whoever reads after a writer was killed,
   sees the old object, the new one, or none: never a part of one.
2. **Durable on return.** What `put` and `create` have returned from outlives a loss of power.
3. **`create` is a fence.** Of any number of callers, on any machines, exactly one succeeds; the others get
   ObjectExists. A retry may find the object of its own first try, whose answer was lost: it then counts as
   created if the bytes are equal. So what is created to exclude others has to hold something unique.
4. **Read your writes, by name.** `get` and `size` see what the last `put` or `create` wrote. `list` may lag
   on some stores: it is for collecting and showing, never for deciding whether an object exists.
5. **Threads.** All methods may be called from any thread at any time. A child that was forked from a process
   with threads may call `get` where an attribute `forks` says so: it takes no locks and needs no threads.

All raise BackendError's children: BackendUnreachable (again may help), BackendFull, BackendDenied; and
ValueError for a name that is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from midstep.vault.errors import ObjectTorn

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_NAME = 512  # characters; S3 and GCS take 1024, which leaves room for a prefix
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254})*")


@dataclass(frozen=True, slots=True, order=True)
class ObjectInfo:
    """An object as listed: its name, and its size in bytes as `get` would return it."""

    name: str
    size: int


class Backend(Protocol):
    def put(self, name: str, data: Buffer) -> None:
        """Store an object, in place of one that has the name. Durable on return."""
        ...

    def create(self, name: str, data: Buffer) -> None:
        """Store an object under a name that is free, or raise ObjectExists. Durable on return."""
        ...

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `start` on, or all to the end. ObjectMissing; ObjectTorn when it ends
        before."""
        ...

    def size(self, name: str) -> int:
        """Bytes of an object. ObjectMissing."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects below a folder ("packs" and "packs/" are the same), ordered by name. May lag."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; harmless when there is none."""
        ...

    def describe(self) -> str:
        """Where this is, for messages; without secrets."""
        ...


def as_bytes(data: Buffer) -> memoryview:
    """The bytes of any buffer, one after the other; copied only where they do not lie so."""
    view = memoryview(data)
    return (view if view.c_contiguous else memoryview(bytes(view))).cast("B")


def check_name(name: str) -> str:
    """The name, if it is one. ValueError."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of an object: at most {MAX_NAME} characters; folders and a name joined "
            f"by '/', "
            "of letters, digits, '-', '_' and '.', none beginning with '.'"
        )
    return name


def check_folder(prefix: str) -> str:
    """A folder to list, ending in "/", or nothing for all. ValueError."""
    return f"{check_name(prefix.removesuffix('/'))}/" if prefix else ""


def end_of(name: str, start: int, length: int | None, size: int) -> int:
    """Where a read of an object that has `size` bytes ends. ObjectTorn, ValueError."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"no such range: {length} bytes from {start} of {name}")
    end = size if length is None else start + length
    if start > size or end > size:
        wanted = f"bytes {start} to {end}" if length is not None else f"what follows byte {start}"
        raise ObjectTorn(
            f"object {name} has {size} bytes; {wanted} was asked for: it was cut short or replaced"
        )
    return end
