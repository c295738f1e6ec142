"""A Channel between threads of one process, for tests: the contract without mailboxes, proxies or processes.

Slow and simple on purpose: every operation is carried out by the thread that posts last. Element types are
those that the standard library knows (no 16-bit or 8-bit floats, no complex numbers). Standard library only.
"""

from __future__ import annotations

import array
import ctypes
import operator
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .channel import group_id
from .contract import (
    Buffer,
    ChannelError,
    ChannelTimeout,
    DType,
    Kind,
    Op,
    ReduceOp,
    Ticket,
)
from .cut import Cut, cut

_CODES = {
    DType.uint8: "B",
    DType.int8: "b",
    DType.int16: "h",
    DType.int32: "i",
    DType.int64: "q",
    DType.float32: "f",
    DType.float64: "d",
    DType.bool: "B",
    DType.uint16: "H",
    DType.uint32: "I",
    DType.uint64: "Q",
}
_operator: Any = operator  # typed too narrowly for what it does
_FOLDS: Dict[ReduceOp, Callable[[Any, Any], Any]] = {
    ReduceOp.SUM: _operator.add,
    ReduceOp.AVG: _operator.add,
    ReduceOp.PREMUL_SUM: _operator.add,
    ReduceOp.PRODUCT: _operator.mul,
    ReduceOp.MIN: min,
    ReduceOp.MAX: max,
    ReduceOp.BAND: _operator.and_,
    ReduceOp.BOR: _operator.or_,
    ReduceOp.BXOR: _operator.xor,
}
_Row = Any  # an array.array


class MemoryTicket:
    """A ticket that an event completes."""

    def __init__(self, op: Op, plan: Cut, keep: object) -> None:
        self.op, self.plan, self.keep = op, plan, keep
        self.peer = op.peer
        self.error: Optional[str] = None
        self._event = threading.Event()
        self._callbacks: List[Callable[[], None]] = []
        self._guard = threading.Lock()

    def done(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: Optional[float]) -> None:
        if not self._event.wait(timeout_s):
            raise ChannelTimeout("%s did not complete in %.6g s" % (self.op.kind.name, timeout_s or 0.0))
        if self.error is not None:
            raise ChannelError(self.error)

    def add_done_callback(self, fn: Callable[[], None]) -> None:
        with self._guard:
            if not self._event.is_set():
                self._callbacks.append(fn)
                return
        fn()

    def source(self) -> List[bytes]:
        """The input, region by region."""
        return [ctypes.string_at(address, nbytes) for address, nbytes in self.plan.ins]

    def finish(self, parts: Sequence[bytes], error: Optional[str] = None) -> None:
        """Write the output and complete."""
        for (address, nbytes), part in zip(self.plan.outs, parts):
            if len(part) != nbytes:
                error = error or "%s: %d bytes for a buffer of %d" % (self.op.kind.name, len(part), nbytes)
            elif error is None:
                ctypes.memmove(address, part, nbytes)
        with self._guard:
            self.error = error
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for fn in callbacks:
            fn()


class MemoryHub:
    """What the channels of one test share."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.values: Dict[str, bytes] = {}
        self.ops: Dict[Tuple[int, int], Dict[int, MemoryTicket]] = {}
        self.sends: List[Tuple[int, int, MemoryTicket]] = []  # gid, sender
        self.recvs: List[Tuple[int, int, MemoryTicket]] = []  # gid, receiver

    def channel(self) -> "MemoryChannel":
        """A rank's channel."""
        return MemoryChannel(self)

    def collective(self, key: Tuple[int, int], me: int, size: int, ticket: MemoryTicket) -> None:
        with self.changed:
            posts = self.ops.setdefault(key, {})
            posts[me] = ticket
            if len(posts) < size:
                return
            del self.ops[key]
        tickets = [posts[k] for k in range(size)]
        error = _objection(tickets)
        results: List[List[bytes]] = [[] for _ in tickets] if error else _carry_out(tickets)
        for one, parts in zip(tickets, results):
            one.finish(parts, error)

    def pair(self) -> None:
        """Match what can be matched."""
        with self.changed:
            found = self._match()
        while found is not None:
            sender, send, recv = found
            recv.peer = sender
            sizes = (send.plan.total, recv.plan.total)
            error = (
                None if sizes[0] == sizes[1] else "rank %d sends %d bytes, %d are received" % (sender, *sizes)
            )
            recv.finish(send.source(), error)
            send.finish([], error)
            with self.changed:
                found = self._match()

    def _match(self) -> Optional[Tuple[int, MemoryTicket, MemoryTicket]]:
        for want in self.recvs:
            gid, receiver, recv = want
            for have in self.sends:
                send = have[2]
                meets = have[0] == gid and send.op.peer == receiver and send.op.tag == recv.op.tag
                if meets and recv.op.peer in (-1, have[1]):
                    self.recvs.remove(want)
                    self.sends.remove(have)
                    return have[1], send, recv
        return None


class MemoryChannel:
    """One rank's end of a hub; implements contract.Channel."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._groups: Dict[int, Tuple[int, int]] = {}
        self._seqs: Dict[int, int] = {}

    def open_group(self, world: str, name: str, ranks: Sequence[int], me: int) -> int:
        gid = group_id(world, name, ranks)
        self._groups[gid] = (len(ranks), me)
        return gid

    def close_group(self, gid: int) -> None:
        self._groups.pop(gid, None)

    def post(self, op: Op, src: Optional[Buffer], dst: Optional[Buffer]) -> Ticket:
        if op.gid not in self._groups:
            raise ChannelError("%s: no group %x is open in this process" % (op.kind.name, op.gid))
        size, me = self._groups[op.gid]
        ticket = MemoryTicket(op, cut(op, size, me, src, dst), (src, dst))
        if op.kind in (Kind.SEND, Kind.RECV):
            with self._hub.changed:
                waiting = self._hub.sends if op.kind == Kind.SEND else self._hub.recvs
                waiting.append((op.gid, me, ticket))
            self._hub.pair()
            return ticket
        with self._hub.changed:
            seq = self._seqs[op.gid] = self._seqs.get(op.gid, 0) + 1
        self._hub.collective((op.gid, seq), me, size, ticket)
        return ticket

    def store_set(self, key: str, value: bytes) -> None:
        with self._hub.changed:
            self._hub.values[key] = value
            self._hub.changed.notify_all()

    def store_get(self, key: str, timeout_s: float) -> bytes:
        self.store_wait([key], timeout_s)
        return self._hub.values[key]

    def store_add(self, key: str, amount: int) -> int:
        with self._hub.changed:
            total = int(self._hub.values.get(key, b"0") or b"0") + amount
            self.store_set(key, b"%d" % total)
            return total

    def store_compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        with self._hub.changed:
            now = self._hub.values.get(key)
            if now == expected or (now is None and not expected):
                self.store_set(key, desired)
                return desired
            return expected if now is None else now

    def store_wait(self, keys: Sequence[str], timeout_s: float) -> None:
        with self._hub.changed:
            if not self._hub.changed.wait_for(
                lambda: all(key in self._hub.values for key in keys), timeout_s
            ):
                raise ChannelTimeout("store: no answer in %.6g s for key %s" % (timeout_s, ", ".join(keys)))

    def store_check(self, keys: Sequence[str]) -> bool:
        with self._hub.changed:
            return all(key in self._hub.values for key in keys)

    def store_delete(self, key: str) -> bool:
        with self._hub.changed:
            return self._hub.values.pop(key, None) is not None

    def store_num_keys(self, prefix: str) -> int:
        with self._hub.changed:
            return sum(1 for key in self._hub.values if key.startswith(prefix))

    def store_append(self, key: str, value: bytes) -> None:
        with self._hub.changed:
            self.store_set(key, self._hub.values.get(key, b"") + value)

    def close(self) -> None:
        self._groups.clear()


def _objection(tickets: Sequence[MemoryTicket]) -> Optional[str]:
    said = [
        "rank %d: %s of %d bytes, %s" % (me, t.op.kind.name, t.plan.total, t.op.dtype.name)
        for me, t in enumerate(tickets)
    ]
    kind = tickets[0].op.kind
    facts = {
        (t.op.kind, t.op.dtype, t.op.root, t.op.reduce, 0 if kind == Kind.ALLTOALL else t.plan.total)
        for t in tickets
    }
    return None if len(facts) == 1 else "the ranks do not agree: " + "; ".join(said)


def _carry_out(tickets: Sequence[MemoryTicket]) -> List[List[bytes]]:
    op, size = tickets[0].op, len(tickets)
    sources = [ticket.source() for ticket in tickets]
    if op.kind in (Kind.ALLREDUCE, Kind.REDUCE):
        return [[_fold(tickets, [row[0] for row in sources])]] * size
    if op.kind == Kind.REDUCE_SCATTER:
        return [[_fold(tickets, [row[me] for row in sources])] for me in range(size)]
    if op.kind == Kind.BROADCAST:
        return [sources[op.root]] * size
    if op.kind in (Kind.ALLGATHER, Kind.GATHER):
        return [[row[0] for row in sources]] * size
    if op.kind == Kind.SCATTER:
        return [[part] for part in sources[op.root]]
    if op.kind == Kind.ALLTOALL:
        return [[row[me] for row in sources] for me in range(size)]
    return [[] for _ in tickets]


def _fold(tickets: Sequence[MemoryTicket], parts: Sequence[bytes]) -> bytes:
    op = tickets[0].op
    code = _CODES[op.dtype]
    rows: List[_Row] = [array.array(code, part) for part in parts]
    if op.reduce == ReduceOp.PREMUL_SUM:
        rows = [array.array(code, [x * t.op.scale for x in row]) for row, t in zip(rows, tickets)]
    result = _tree(rows, code, _FOLDS[op.reduce])
    if op.reduce == ReduceOp.AVG:
        divide = _operator.truediv if code in "fd" else _operator.floordiv
        result = array.array(code, [divide(x, len(rows)) for x in result])
    return result.tobytes()


def _tree(rows: Sequence[_Row], code: str, combine: Callable[[Any, Any], Any]) -> _Row:
    if len(rows) == 1:
        return rows[0]
    half = 1 << ((len(rows) - 1).bit_length() - 1)
    left, right = _tree(rows[:half], code, combine), _tree(rows[half:], code, combine)
    return array.array(code, [combine(x, y) for x, y in zip(left, right)])
