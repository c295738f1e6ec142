"""A snapshot from one archive to another: only chunks that the other lacks travel, in their stored form.

`receive` is the whole of it for whoever has a source of chunks. Between regions they travel as one stream of
frames, `frames` on the side that sends and `pieces` on the side that receives:

    length (4 bytes, big-endian), one exported chunk
    0                              the end; a stream that ends without it was cut
    FFFFFFFF, length, text         the sender cannot go on, because its archive is damaged: why

What came before a stream was cut is kept (`receive` makes it durable bit by bit), so the next one brings only
what is missing then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from midstep.vault.archive import fence
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.leases import Lease
from midstep.vault.archive.manifest import ArchivedSnapshot
from midstep.vault.archive.trees import ID_BYTES
from midstep.vault.errors import Damaged, LeaseLost, ObjectDamaged, ObjectMissing, ObjectTorn
from midstep.vault.store.content import ChunkId

_END, _FAILED = 0, 0xFFFFFFFF
_SEND_BYTES = 1 << 20  # frames go together: each piece of a body costs a turn of an event loop
_KEEP_BYTES = 32 << 20  # as much may have to travel again when a receiver is killed
_MOST_BYTES = 64 << 20  # of one frame: no chunk is nearly that long


@dataclass(frozen=True, slots=True)
class Shipped:
    """What has travelled, stored form, of how much (estimated until the end), and the plain bytes of chunks
    that were there already. ``again``: the snapshot was there already."""

    chunks: int = 0
    sent_bytes: int = 0
    known_bytes: int = 0
    left_bytes: int = 0  # plain bytes of chunks that have still to come
    again: bool = False


class StreamCut(Exception):
    """A stream of frames ended before its end."""


Fetch = Callable[[Sequence[ChunkId]], Iterable[bytes]]
Report = Callable[[Shipped], None]


def receive(target: Archive, archived: ArchivedSnapshot, fetch: Fetch, report: Report) -> Shipped:
    """Have a snapshot in an archive, too. ``fetch``: chunks -> what `export` gives of them, in any order.

    What ``fetch`` raises on the way is raised after what came is durable. ChunkDamaged, ChunkMissing, Busy,
    LeaseLost (again may help).
    """
    if target.exists(archived.snapshot_id):
        return Shipped(again=True)
    with Lease(target.backend, target.clock, target.ids) as lease:
        target.catch_up(lease)
        plain = archived.plain_bytes()
        wanted = sorted(target.repository.missing(plain))
        new = sum(plain[chunk] for chunk in wanted)
        tally = _Tally(plain, Shipped(0, 0, sum(plain.values()) - new, new), lease, report)
        report(tally.so_far)
        if wanted:
            _take(target, fetch(wanted), tally)
        generation = fence.newest(target.backend, archived.job_id)  # a copy takes the job from nobody
        target.commit(replace(archived, generation=generation), lease)
    return tally.so_far


def frames(source: Archive, ids: Sequence[ChunkId]) -> Iterator[bytes]:
    """Chunks as a stream. Nothing of them is collected meanwhile. What is damaged is said in the stream."""
    with Lease(source.backend, source.clock, source.ids) as lease:
        source.catch_up(lease)
        body = bytearray()
        try:
            for piece in source.repository.export(ids):
                body += len(piece).to_bytes(4, "big") + piece
                if len(body) >= _SEND_BYTES:
                    yield bytes(body)
                    body.clear()
                    with contextlib.suppress(LeaseLost):  # a chunk that is gone is noticed when it is read
                        lease.renew()
        except (Damaged, ObjectDamaged, ObjectMissing, ObjectTorn) as error:
            text = str(error).encode()
            yield bytes(body) + _FAILED.to_bytes(4, "big") + len(text).to_bytes(4, "big") + text
            return
        yield bytes(body) + _END.to_bytes(4, "big")


def pieces(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The exported chunks in a stream. StreamCut; Damaged: the sender's archive is."""
    reader = _Reader(stream)
    while (length := int.from_bytes(reader.take(4), "big")) != _END:
        if length == _FAILED:
            text = reader.take(int.from_bytes(reader.take(4), "big"))
            raise Damaged(text.decode(errors="replace"))
        if length > _MOST_BYTES:
            raise StreamCut(f"a frame of {length} bytes is not a chunk's: what came is no stream of chunks")
        yield reader.take(length)


def join_ids(ids: Iterable[ChunkId]) -> bytes:
    """Ids as the body of a request."""
    return b"".join(ids)


def split_ids(body: bytes) -> list[ChunkId]:
    """The other way. ValueError: it is none."""
    if len(body) % ID_BYTES:
        raise ValueError(f"{len(body)} bytes are no ids of chunks, which have {ID_BYTES} each")
    return [body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)]


class _Tally:
    """Counts what comes."""

    def __init__(self, plain: dict[ChunkId, int], so_far: Shipped, lease: Lease, report: Report) -> None:
        self._plain, self._lease, self._report = plain, lease, report
        self.so_far = so_far

    def count(self, piece: bytes) -> None:
        now = self.so_far
        left = now.left_bytes - self._plain.get(bytes(piece[:ID_BYTES]), 0)
        self.so_far = replace(
            now, chunks=now.chunks + 1, sent_bytes=now.sent_bytes + len(piece), left_bytes=left
        )
        with contextlib.suppress(LeaseLost):  # found again before the commit
            self._lease.renew()
        self._report(self.so_far)


def _take(target: Archive, source: Iterable[bytes], tally: _Tally) -> None:
    """Store what comes, some at a time; what has come stays even if the rest does not."""
    left = iter(source)
    while True:
        group = _Group(left, tally)
        target.repository.import_(group)
        if group.error is not None:
            raise group.error
        if group.ended:
            return


class _Group(Iterable[bytes]):
    """So many of the pieces that one import makes durable. An error of the source ends it: the import then
    keeps what came before."""

    def __init__(self, pieces: Iterator[bytes], tally: _Tally) -> None:
        self._pieces, self._tally = pieces, tally
        self.ended = False
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        nbytes = 0
        while nbytes < _KEEP_BYTES:
            try:
                piece = next(self._pieces)
                self._tally.count(piece)
            except StopIteration:
                self.ended = True
                return
            except Exception as error:
                self.error = error
                return
            nbytes += len(piece)
            yield piece


class _Reader:
    """Exactly so many bytes of a stream at a time."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = iter(stream)
        self._rest = memoryview(b"")
        self._count = 0

    def take(self, length: int) -> bytes:
        """StreamCut: there are not so many."""
        if len(self._rest) >= length:
            return self._cut(length)
        parts = [self._rest]
        missing = length - len(self._rest)
        while missing > 0:
            got = next(self._stream, None)
            if got is None:
                raise StreamCut(f"the stream of chunks ended after {self._count} bytes")
            self._count += len(got)
            parts.append(memoryview(got))
            missing -= len(got)
        self._rest = memoryview(b"".join(parts))
        return self._cut(length)

    def _cut(self, length: int) -> bytes:
        piece, self._rest = bytes(self._rest[:length]), self._rest[length:]
        return piece
