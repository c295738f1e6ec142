"""Ships what the ranks print: new bytes of every rank's log, from where the controller has them.

A log is part of the cut. After a restore it may be shorter than what the controller has: then a chunk at the
lower offset (possibly empty) tells the controller to forget the rest. ``floor`` is a log's size at the cut
that its rank came from: whatever the controller has beyond that may belong to the time after the cut, so
shipping begins there at the latest.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from midstep.wire.agent import LogChunk

CHUNK_BYTES = 128 * 1024
_TAIL_BYTES = 32 * 1024


@dataclass(slots=True)
class _Reader:
    epoch: int
    path: Path
    offset: int
    rewound: bool  # the controller must hear of `offset` even if nothing follows


class LogShipper:
    """Where each log stands in the present session. Forget everything with `reset` when the session ends."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, int], _Reader] = {}

    def reset(self) -> None:
        """A new session: offsets come from the controller again."""
        self._readers.clear()

    def anchor(
        self, job_id: str, epoch: int, rank: int, path: Path, has_bytes: int, floor: int | None
    ) -> None:
        """Ship this log from what the controller has. Once per session and epoch; the other calls change
        nothing."""
        known = self._readers.get((job_id, rank))
        if known is not None and known.epoch == epoch:
            return
        offset = min(size for size in (has_bytes, floor, _size(path)) if size is not None)
        self._readers[job_id, rank] = _Reader(epoch, path, offset, rewound=offset < has_bytes)

    def drop(self, job_id: str) -> None:
        """The job is not here any more."""
        self.keep(job_id, ())

    def keep(self, job_id: str, ranks: Iterable[int]) -> None:
        """Only these ranks of the job are here."""
        here = set(ranks)
        for key in [key for key in self._readers if key[0] == job_id and key[1] not in here]:
            del self._readers[key]

    def anchored(self, job_id: str, rank: int) -> bool:
        """Whether this log is shipped in this session."""
        return (job_id, rank) in self._readers

    def shipped(self, job_id: str, rank: int) -> bool:
        """Whether everything in the log now has been given to the session."""
        reader = self._readers.get((job_id, rank))
        return reader is not None and not reader.rewound and reader.offset == _size(reader.path)

    def chunks(self) -> list[LogChunk]:
        """One chunk of each log that has something new. They count as shipped."""
        found: list[LogChunk] = []
        for (job_id, rank), reader in sorted(self._readers.items(), key=lambda item: item[0]):
            if not reader.path.exists():  # on its way out: that is no news about what was printed
                continue
            size = _size(reader.path)
            if size < reader.offset:  # cut off by the job itself
                reader.offset, reader.rewound = size, True
            if size == reader.offset and not reader.rewound:
                continue
            data = _read(reader.path, reader.offset, CHUNK_BYTES)
            found.append(LogChunk(job_id, rank, reader.offset, base64.b64encode(data).decode()))
            reader.offset += len(data)
            reader.rewound = False
        return found


def last_lines(path: Path, count: int = 20) -> tuple[str, ...]:
    """The end of a log as text; undecodable bytes are replaced."""
    size = _size(path)
    text = _read(path, max(0, size - _TAIL_BYTES), _TAIL_BYTES).decode(errors="replace")
    return tuple(text.splitlines()[-count:])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, offset: int, count: int) -> bytes:
    """The rank's user owns the folder: a link put in the log's place must not make us read another file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)
