"""How an operation is cut into chunks, and which pieces of memory each chunk reads and writes.

Every member of an operation cuts at the same places. Operations on one buffer are cut every CHUNK_BYTES;
those whose buffers have one part for each member are cut inside every part, so that a chunk is a smaller
operation of the same kind. Standard library only.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from .contract import Buffer, ChannelError, Kind, Op
from .layout import CHUNK_BYTES

Regions = Sequence[Tuple[int, int]]  # (address, bytes)
_PAGE = 4096


class Cut:
    """An operation's memory. ``ins`` and ``outs`` are its regions, ``step`` the bytes of each that a chunk
    takes."""

    __slots__ = ("ins", "outs", "step", "chunks", "total", "splits", "out_splits", "asks")

    def __init__(self, ins: Regions, outs: Regions, step: int, longest: int, total: int) -> None:
        self.ins = ins
        self.outs = outs
        self.step = step
        self.chunks = 1 if longest <= step else -(-longest // step)
        self.total = total
        self.splits: Sequence[int] = ()  # empty: equal parts
        self.out_splits: Sequence[int] = ()
        self.asks = False  # chunk 0 goes alone: its result says how to go on

    def part(self, regions: Regions, chunk: int) -> List[Tuple[int, int]]:
        """What chunk number ``chunk`` takes of some regions."""
        if self.chunks == 1 and chunk == 0:
            return list(regions)
        start = chunk * self.step
        return [(a + min(start, n), min(max(n - start, 0), self.step)) for a, n in regions]

    def numbers(self, chunk: int) -> Tuple[List[int], List[int]]:
        """The chunk's own splits."""
        start, step = chunk * self.step, self.step
        return (
            [min(max(n - start, 0), step) for n in self.splits],
            [min(max(n - start, 0), step) for n in self.out_splits],
        )


def cut(op: Op, size: int, me: int, src: Optional[Buffer], dst: Optional[Buffer]) -> Cut:
    """Cut ``op`` for member ``me`` of ``size``; raises ChannelError when buffers and splits contradict each
    other."""
    kind = op.kind
    a, n = (src.address, src.nbytes) if src is not None else (0, 0)
    b, m = (dst.address, dst.nbytes) if dst is not None else (0, 0)
    if kind == Kind.ALLREDUCE:
        if n != m:
            raise ChannelError("ALLREDUCE: src has %d bytes and dst %d" % (n, m))
        return Cut(((a, n),), ((b, m),), CHUNK_BYTES, n, n)
    if kind == Kind.BARRIER:
        return Cut((), (), CHUNK_BYTES, 0, 0)
    if kind == Kind.REDUCE:
        return Cut(((a, n),), ((b, m),) if me == op.root else (), CHUNK_BYTES, n, n)
    if kind == Kind.BROADCAST:
        at_root = me == op.root
        total = n if at_root else m
        return Cut(((a, n),) if at_root else (), () if at_root else ((b, m),), CHUNK_BYTES, total, total)
    if kind == Kind.SEND:
        return Cut(((a, n),), (), CHUNK_BYTES, n, n)
    if kind == Kind.RECV:
        result = Cut((), ((b, m),), CHUNK_BYTES, m, m)
        result.asks = result.chunks > 1
        return result
    return _by_parts(op, size, me, (a, n), (b, m))


def _by_parts(op: Op, size: int, me: int, src: Tuple[int, int], dst: Tuple[int, int]) -> Cut:
    kind = op.kind
    step = max(_PAGE, CHUNK_BYTES // size // _PAGE * _PAGE)
    (a, n), (b, m) = src, dst
    if kind == Kind.ALLTOALL:
        splits = _splits(op, op.splits, size, n)
        out_splits = _splits(op, op.out_splits, size, m)
        result = Cut(_regions(a, splits), _regions(b, out_splits), step, max(*splits, *out_splits, 0), n)
        if not _equal(splits + out_splits):
            result.splits, result.out_splits, result.asks = splits, out_splits, True
        return result
    if kind in (Kind.ALLGATHER, Kind.GATHER):
        takes = kind == Kind.ALLGATHER or me == op.root
        splits = _splits(op, op.splits, size, m if takes else sum(op.splits) or n * size)
        result = Cut(((a, n),), _regions(b, splits) if takes else (), step, max(splits), sum(splits))
        own = n
    elif kind == Kind.SCATTER:
        gives = me == op.root
        splits = _splits(op, op.splits, size, n if gives else sum(op.splits) or m * size)
        result = Cut(_regions(a, splits) if gives else (), ((b, m),), step, max(splits), sum(splits))
        own = m
    else:
        splits = _splits(op, op.splits, size, n)
        result = Cut(_regions(a, splits), ((b, m),), step, max(splits), n)
        own = m
    if own != splits[me]:
        raise ChannelError(
            "%s: this rank's part has %d bytes and its split %d" % (kind.name, own, splits[me])
        )
    if not _equal(splits):
        result.splits = splits
    return result


def _splits(op: Op, given: Sequence[int], size: int, total: int) -> List[int]:
    if not given:
        if total % size:
            raise ChannelError("%s: %d bytes cannot be cut into %d equal parts" % (op.kind.name, total, size))
        return [total // size] * size
    if len(given) != size or (sum(given) != total):
        raise ChannelError(
            "%s: splits %s do not describe a buffer of %d bytes for %d members"
            % (op.kind.name, list(given), total, size)
        )
    return list(given)


def _regions(address: int, splits: Sequence[int]) -> List[Tuple[int, int]]:
    regions: List[Tuple[int, int]] = []
    for n in splits:
        regions.append((address, n))
        address += n
    return regions


def _equal(numbers: Sequence[int]) -> bool:
    return all(n == numbers[0] for n in numbers)
