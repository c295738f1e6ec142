"""What the harness's ranks run: operations on random data that every rank can compute for all, so each checks
itself."""

from __future__ import annotations

import os
import random
import time
import zlib
from typing import Any

import numpy as np

from midstep.mailbox.contract import Buffer, Channel, ChannelError, DType, Kind, Op, ReduceOp, Ticket

Array = np.ndarray[Any, Any]
WAIT_S = 60.0


def buffer(array: Array | None) -> Buffer | None:
    """An array as a Buffer."""
    return None if array is None or not array.nbytes else Buffer(array.ctypes.data, array.nbytes, array)


def world(channel: Channel, rank: int, size: int, name: str = "") -> int:
    """The group of all ranks."""
    return channel.open_group("env://", name, list(range(size)), rank)


def allreduce(channel: Channel, gid: int, array: Array, op: ReduceOp = ReduceOp.SUM) -> Ticket:
    """Post an all-reduce in place."""
    dtype = DType[array.dtype.name]
    return channel.post(Op(Kind.ALLREDUCE, gid, dtype, op), buffer(array), buffer(array))


def data(seed: int, rank: int, count: int, dtype: str = "float32") -> Array:
    """A rank's input."""
    rng = np.random.default_rng([seed + 1000, rank])
    if dtype == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(1, 5, count).astype(dtype)
    if np.dtype(dtype).kind == "c":
        return (rng.standard_normal(count) + 1j * rng.standard_normal(count)).astype(dtype)
    return rng.standard_normal(count).astype(dtype)


def tree_sum(parts: list[Array], combine: Any = np.add) -> Array:
    """The canonical reduction, written down again."""
    if len(parts) == 1:
        return parts[0]
    half = 1
    while half * 2 < len(parts):
        half *= 2
    return combine(tree_sum(parts[:half], combine), tree_sum(parts[half:], combine))


def sums(channel: Channel, rank: int, size: int, count: int, steps: int, pause_s: float = 0.0) -> list[bytes]:
    """Some all-reduces, one after the other."""
    gid = world(channel, rank, size)
    out: list[bytes] = []
    for step in range(steps):
        array = data(step, rank, count)
        allreduce(channel, gid, array).wait(WAIT_S)
        out.append(array.tobytes() if array.nbytes < 100_000 else bytes(np.frombuffer(array, "u1")[::997]))
        time.sleep(pause_s)
    return out


def every_kind(channel: Channel, rank: int, size: int, *counts: int) -> bool:
    """Each kind once for each number of elements, equal and unequal parts, checked against numpy."""
    for count in counts:
        gid = world(channel, rank, size, f"of {count}")
        check_reductions(channel, gid, rank, size, count)
        check_rooted(channel, gid, rank, size, count)
        check_parts(channel, gid, rank, size, count)
        check_pairs(channel, gid, rank, size, count)
        channel.post(Op(Kind.BARRIER, gid), None, None).wait(WAIT_S)
        channel.close_group(gid)
    return True


def check_reductions(channel: Channel, gid: int, rank: int, size: int, count: int) -> None:
    cases = [
        (ReduceOp.SUM, "float32", np.add),
        (ReduceOp.SUM, "int64", np.add),
        (ReduceOp.PRODUCT, "float64", np.multiply),
        (ReduceOp.MIN, "int32", np.minimum),
        (ReduceOp.MAX, "float32", np.maximum),
        (ReduceOp.BAND, "uint8", np.bitwise_and),
        (ReduceOp.BOR, "int16", np.bitwise_or),
        (ReduceOp.BXOR, "bool", np.bitwise_xor),
        (ReduceOp.SUM, "complex64", np.add),
        (ReduceOp.SUM, "float16", np.add),
    ]
    for seed, (op, dtype, combine) in enumerate(cases):
        want = tree_sum([data(seed, r, count, dtype) for r in range(size)], combine)
        got = data(seed, rank, count, dtype)
        allreduce(channel, gid, got, op).wait(WAIT_S)
        assert got.tobytes() == want.tobytes(), (op, dtype)
    want = tree_sum([data(50, r, count) for r in range(size)]) / np.float32(size)
    got = data(50, rank, count)
    allreduce(channel, gid, got, ReduceOp.AVG).wait(WAIT_S)
    assert got.tobytes() == want.astype(np.float32).tobytes()
    want = tree_sum([data(51, r, count) * np.float32(0.5) for r in range(size)])
    got = data(51, rank, count)
    premul = Op(Kind.ALLREDUCE, gid, DType.float32, ReduceOp.PREMUL_SUM, scale=0.5)
    channel.post(premul, buffer(got), buffer(got)).wait(WAIT_S)
    assert got.tobytes() == want.tobytes()


def check_rooted(channel: Channel, gid: int, rank: int, size: int, count: int) -> None:
    root = size - 1
    mine, out = data(1, rank, count), np.zeros(count, np.float32)
    at_root = buffer(out) if rank == root else None
    channel.post(Op(Kind.REDUCE, gid, DType.float32, root=root), buffer(mine), at_root).wait(WAIT_S)
    if rank == root:
        assert out.tobytes() == tree_sum([data(1, r, count) for r in range(size)]).tobytes()
    out = data(2, root, count) if rank == root else np.zeros(count, np.float32)
    src, dst = (buffer(out), None) if rank == root else (None, buffer(out))
    channel.post(Op(Kind.BROADCAST, gid, DType.float32, root=root), src, dst).wait(WAIT_S)
    assert out.tobytes() == data(2, root, count).tobytes()


def check_parts(channel: Channel, gid: int, rank: int, size: int, count: int) -> None:
    for equal in (True, False):
        counts = [count if equal else count * r + r for r in range(size)]
        given = tuple(4 * n for n in counts)
        splits = () if equal else given
        everything = np.concatenate([data(3, r, counts[r]) for r in range(size)])
        out = np.zeros(sum(counts), np.float32)
        mine = data(3, rank, counts[rank])
        channel.post(Op(Kind.ALLGATHER, gid, splits=splits), buffer(mine), buffer(out)).wait(WAIT_S)
        assert out.tobytes() == everything.tobytes(), "allgather"
        out[:] = 0
        takes = buffer(out) if rank == 0 else None
        channel.post(Op(Kind.GATHER, gid, splits=given), buffer(mine), takes).wait(WAIT_S)
        assert rank or out.tobytes() == everything.tobytes(), "gather"
        part = np.zeros(counts[rank], np.float32)
        gives = buffer(everything) if rank == 0 else None
        channel.post(Op(Kind.SCATTER, gid, splits=given), gives, buffer(part)).wait(WAIT_S)
        assert part.tobytes() == mine.tobytes(), "scatter"
        row = data(4, rank, sum(counts))
        reduce_scatter = Op(Kind.REDUCE_SCATTER, gid, DType.float32, splits=splits)
        channel.post(reduce_scatter, buffer(row), buffer(part)).wait(WAIT_S)
        start = sum(counts[:rank])
        want = tree_sum([data(4, r, sum(counts))[start : start + counts[rank]] for r in range(size)])
        assert part.tobytes() == want.tobytes(), "reduce_scatter"
    check_alltoall(channel, gid, rank, size, count)


def check_alltoall(channel: Channel, gid: int, rank: int, size: int, count: int) -> None:
    def sent(a: int, b: int) -> int:
        return count * ((a * 3 + b) % 4)

    for amount in (lambda a, b: count, sent):
        rows = [data(5, r, sum(amount(r, b) for b in range(size))) for r in range(size)]
        starts = [sum(amount(r, b) for b in range(rank)) for r in range(size)]
        want = np.concatenate([rows[r][starts[r] : starts[r] + amount(r, rank)] for r in range(size)])
        out = np.zeros(len(want), np.float32)
        splits = tuple(4 * amount(rank, b) for b in range(size))
        out_splits = tuple(4 * amount(a, rank) for a in range(size))
        op = Op(Kind.ALLTOALL, gid, splits=splits, out_splits=out_splits)
        channel.post(op, buffer(rows[rank]), buffer(out)).wait(WAIT_S)
        assert out.tobytes() == want.tobytes(), "alltoall"


def check_pairs(channel: Channel, gid: int, rank: int, size: int, count: int) -> None:
    if size == 1:
        return
    right, left = (rank + 1) % size, (rank - 1) % size
    a, b, out_a, out_b = data(6, rank, count), data(7, rank, 3), np.zeros(count, "f4"), np.zeros(3, "f4")
    tickets = [
        channel.post(Op(Kind.SEND, gid, peer=right, tag=1), buffer(a), None),
        channel.post(Op(Kind.SEND, gid, peer=right, tag=2), buffer(b), None),
        channel.post(Op(Kind.RECV, gid, peer=left, tag=2), None, buffer(out_b)),
        channel.post(Op(Kind.RECV, gid, peer=left, tag=1), None, buffer(out_a)),
    ]
    for ticket in reversed(tickets):
        ticket.wait(WAIT_S)
    assert out_a.tobytes() == data(6, left, count).tobytes()
    assert out_b.tobytes() == data(7, left, 3).tobytes()
    if rank:
        for k in range(3):
            channel.post(Op(Kind.SEND, gid, peer=0, tag=9), buffer(data(8 + k, rank, count)), None).wait(
                WAIT_S
            )
    else:
        seen = [0] * size
        for _ in range(3 * (size - 1)):
            out = np.zeros(count, np.float32)
            ticket = channel.post(Op(Kind.RECV, gid, peer=-1, tag=9), None, buffer(out))
            ticket.wait(WAIT_S)
            peer = ticket.peer
            assert out.tobytes() == data(8 + seen[peer], peer, count).tobytes(), "any source: order by sender"
            seen[peer] += 1


def disturbed(channel: Channel, rank: int, size: int, seed: int, steps: int) -> list[Any]:
    """A mixture of everything, in an order that the seed gives, several at a time; a digest of each step."""
    gid = world(channel, rank, size)
    pair = [0, size - 1]
    sub = channel.open_group("env://", "pair", pair, pair.index(rank)) if rank in pair and size > 1 else 0
    shared = random.Random(seed)
    out: list[Any] = []
    for step in range(steps):
        count = shared.choice([1, 100, 5000, 300_000, 900_000])
        arrays = [data(seed + step * 10 + k, rank, count) for k in range(3)]
        tickets = [allreduce(channel, gid, array) for array in arrays]
        if sub:
            tickets.append(allreduce(channel, sub, extra := data(seed + step, rank, 1000)))
            arrays.append(extra)
        if size > 1:
            got = np.zeros(count, np.float32)
            sent = data(seed + 7 * step, rank, count)
            tickets.append(channel.post(Op(Kind.SEND, gid, peer=(rank + 1) % size), buffer(sent), None))
            tickets.append(channel.post(Op(Kind.RECV, gid, peer=(rank - 1) % size), None, buffer(got)))
            arrays.append(got)
        total = channel.store_add("steps", 1)
        key = f"{step}/{rank}"
        channel.store_set(key, str(step).encode())
        assert channel.store_get(f"{step}/{(rank + 1) % size}", WAIT_S) == str(step).encode()
        assert total <= steps * size
        for ticket in tickets:
            ticket.wait(WAIT_S)
        out.append([_digest(array) for array in arrays])
    channel.post(Op(Kind.BARRIER, gid), None, None).wait(WAIT_S)
    assert channel.store_add("steps", 0) == steps * size, "an addition was lost or done twice"
    return out


def _digest(array: Array) -> int:
    return zlib.crc32(array.tobytes())


def refused(channel: Channel, rank: int, size: int, *whats: str) -> list[str]:
    """Members that contradict each other; what the errors say. The channel still works after each."""
    gid = world(channel, rank, size)
    return [contradict(channel, gid, rank, size, what) for what in whats]


def contradict(channel: Channel, gid: int, rank: int, size: int, what: str) -> str:
    """Once."""
    odd = rank == size - 1
    array = data(0, rank, 700_000 if what == "large" else 12)
    try:
        if odd and what == "kind":
            channel.post(Op(Kind.BROADCAST, gid, DType.float32, root=rank), buffer(array), None).wait(WAIT_S)
        elif odd and what in ("count", "large"):
            allreduce(channel, gid, array[: len(array) // 2].copy()).wait(WAIT_S)
        elif odd and what == "dtype":
            allreduce(channel, gid, array.view(np.int32)).wait(WAIT_S)
        elif what == "undefined":
            allreduce(channel, gid, array, ReduceOp.BXOR).wait(WAIT_S)
        else:
            allreduce(channel, gid, array).wait(WAIT_S)
        text = "it was carried out"
    except ChannelError as error:
        text = str(error)
    array = data(1, rank, 10)
    allreduce(channel, gid, array).wait(WAIT_S)
    assert array.tobytes() == tree_sum([data(1, r, 10) for r in range(size)]).tobytes()
    return text


def leaves_early(channel: Channel, rank: int, size: int, how: str) -> str:
    """The last rank ends; what the others' operation says."""
    gid = world(channel, rank, size)
    allreduce(channel, gid, data(0, rank, 10)).wait(WAIT_S)
    if rank == size - 1:
        if how == "exits":
            os._exit(0)
        return "left"
    try:
        allreduce(channel, gid, data(0, rank, 10)).wait(WAIT_S)
    except ChannelError as error:
        return str(error)
    return "it was carried out"


def forgets(channel: Channel, rank: int, size: int) -> bool:
    """The last rank posts late: the others hang for a while."""
    gid = world(channel, rank, size)
    array = data(0, rank, 10)
    if rank == size - 1:
        channel.store_wait(["go"], WAIT_S)
    allreduce(channel, gid, array).wait(WAIT_S)
    return True


def memory(channel: Any, rank: int, size: int, count: int) -> int:
    """One huge all-reduce; how large the mailbox has become, in bytes."""
    gid = world(channel, rank, size)
    array = data(0, rank, count)
    want = tree_sum([data(0, r, count)[-1000:] for r in range(size)])
    allreduce(channel, gid, array).wait(WAIT_S)
    assert array[-1000:].tobytes() == want.tobytes()
    return os.fstat(channel.core.file.fd).st_size
