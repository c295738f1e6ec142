"""``MailboxChannel``: the contract's Channel inside a rank, over this process's mailbox. Standard library
only."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from typing import Dict, List, Optional, Sequence, Tuple

from . import futex
from .contract import Buffer, ChannelError, Kind, Op, ReduceOp, Ticket
from .core import Core, Pair
from .cut import Cut, cut
from .direct import may_stay, post_in_place
from .gate import Gate
from .layout import KIND_GROUP, State, out_offset
from .pump import Pump
from .storing import StoreClient
from .tickets import Finished, Flight, Large, Small

_PAIRWISE = (Kind.SEND, Kind.RECV)


class Member:
    """This process's membership of one group."""

    __slots__ = ("gid", "size", "me", "seq", "sends", "recvs", "pair", "opened")

    def __init__(self, gid: int, size: int, me: int) -> None:
        self.gid = gid
        self.size = size
        self.me = me
        self.seq = self.sends = self.recvs = 0
        self.pair: Optional[Pair] = None
        self.opened = 0


class MailboxChannel(StoreClient):
    """Operations and store requests through a memfd. One per process; every method may be called from any
    thread.

    ``run_dir`` is where a new mailbox is announced (a hint for the proxy; see DESIGN.md); None announces
    nothing.
    """

    def __init__(self, rank: int = -1, world_size: int = 0, run_dir: Optional[str] = None) -> None:
        self.core = Core(rank, world_size)
        self.gate = Gate(self.core)
        StoreClient.__init__(self, self.core, self.gate)
        self.pump = Pump(self.core, self.gate)
        self._members: Dict[int, Member] = {}
        self._open: Dict[int, Flight] = {}  # by slot: small operations that nobody may be waiting for
        if run_dir:
            _announce(run_dir, self.core.uid)

    def open_group(self, world: str, name: str, ranks: Sequence[int], me: int) -> int:
        gid = group_id(world, name, ranks)
        core = self.core
        text = json.dumps({"world": world, "name": name, "ranks": list(ranks), "me": me}).encode()
        with core.lock:
            member = self._members.get(gid)
            if member is None:
                member = self._members[gid] = Member(gid, len(ranks), me)
            member.opened += 1
            if member.opened > 1:
                return gid
            member.me = me
            pair = core.take(len(text))
            if pair is None:
                raise ChannelError("all slots of the mailbox are in use")
            member.pair = pair
            stamp = core.stamp()
        body = (
            gid,
            0,
            stamp,
            0,
            1,
            KIND_GROUP,
            0,
            0,
            0,
            me,
            0,
            len(text),
            pair.block,
            len(text),
            0,
            1.0,
            0,
            0,
            0,
            0,
        )
        core.fill(pair, body, (), ())
        core.file.view(pair.block, len(text))[:] = text
        core.push(pair)
        return gid

    def close_group(self, gid: int) -> None:
        core = self.core
        with core.lock:
            member = self._members.get(gid)
            if member is None or member.opened == 0 or core.closed:
                return
            member.opened -= 1
            pair = member.pair
            if member.opened or pair is None:
                return
            member.pair = None
            core.words[pair.word] = State.CLOSED
            core.ring(pair.slot)
            core.retire(pair)
        futex.wake(core.posted_address)

    def reserve(self, gid: int) -> int:
        """The number of the group's next collective, for one that may be posted later, or never."""
        with self.core.lock:
            member = self._members[gid]
            seq, member.seq = member.seq, member.seq + 1
        return seq

    def post(
        self, op: Op, src: Optional[Buffer], dst: Optional[Buffer], reserved: Optional[int] = None
    ) -> Ticket:
        core = self.core
        if core.closed:
            raise ChannelError(core.closed)
        member = self._members.get(op.gid)
        if member is None or not member.opened:
            raise ChannelError("%s: no group %x is open in this process" % (op.kind.name, op.gid))
        plan = cut(op, member.size, member.me, src, dst)
        kind = op.kind
        if member.size == 1 and kind not in _PAIRWISE and op.reduce != ReduceOp.PREMUL_SUM:
            _copy_alone(plan)
            return Finished()
        with core.lock:
            if kind == Kind.SEND:
                seq, member.sends = member.sends, member.sends + 1
            elif kind == Kind.RECV:
                seq, member.recvs = member.recvs, member.recvs + 1
            elif reserved is not None:
                seq = reserved
            else:
                seq, member.seq = member.seq, member.seq + 1
        keep: Tuple[object, object] = (src, dst)
        if plan.chunks == 1 and kind != Kind.ALLTOALL and not (kind in _PAIRWISE and self.pump.backlog):
            posted = self.post_chunk(op, member, seq, plan, 0, op.peer, 0)
            if posted is not None:
                ticket = Small(self, op, keep, posted[0], posted[1], plan)
                self._open[posted[0].slot] = ticket
                return ticket
        if kind == Kind.ALLTOALL and plan.out_splits and src is not None:
            keep = (keep, _detach(src, dst, plan))
        whole = post_in_place(self.core, op, member, seq, plan) if may_stay(core, op, member, plan) else None
        large = Large(self, op, keep, member, seq, plan, whole)
        self.pump.add(large)
        return large

    def post_chunk(
        self, op: Op, member: Member, seq: int, plan: Cut, chunk: int, peer: int, match: int
    ) -> Optional[Tuple[Pair, int]]:
        """Post one chunk; (its slot, its input's bytes), or None while every slot is in use."""
        core = self.core
        ins = plan.part(plan.ins, chunk)
        outs = plan.part(plan.outs, chunk)
        numbers: List[int] = []
        counts = (0, 0)
        if plan.splits:
            first, second = plan.numbers(chunk)
            counts = (len(first), len(second))
            numbers = first + second
        in_len = sum([n for _, n in ins])
        out_len = sum([n for _, n in outs])
        nbytes = out_offset(in_len, len(numbers)) + out_len
        pair = self._take(nbytes)
        if pair is None:
            return None
        # The order is layout.Body's.
        head = (
            op.gid,
            seq,
            core.stamp(),
            chunk,
            plan.chunks,
            op.kind,
            op.dtype,
            op.reduce,
            op.root,
            peer,
            op.tag,
        )
        body = (*head, plan.total, pair.block, in_len, out_len, op.scale, counts[0], counts[1], match, 0)
        core.fill(pair, body, ins, numbers)
        core.push(pair)
        return pair, in_len

    def landed(self, gid: int, pair: Pair) -> None:
        """A slot's output was taken. With the core's lock held."""
        self._open.pop(pair.slot, None)
        self.core.retire(pair)

    def close(self) -> None:
        """Leave: groups close, and the mailbox goes."""
        for gid, member in list(self._members.items()):
            while member.opened:
                self.close_group(gid)
        self.core.close()
        self.pump.stop()

    def _take(self, nbytes: int) -> Optional[Pair]:
        core = self.core
        with core.lock:
            pair = core.take(nbytes)
        if pair is None:
            for ticket in list(self._open.values()):  # completed ones that nobody waited for
                ticket.advance()
            with core.lock:
                pair = core.take(nbytes)
        return pair


def group_id(world: str, name: str, ranks: Sequence[int]) -> int:
    """The number by which every member knows a group."""
    text = json.dumps([world, name, list(ranks)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _copy_alone(plan: Cut) -> None:
    for (source, nbytes), (target, room) in zip(plan.ins, plan.outs):
        if source != target:
            ctypes.memmove(target, source, min(nbytes, room))


def _detach(src: Buffer, dst: Optional[Buffer], plan: Cut) -> object:
    """An unequal ALLTOALL onto its own input reads a copy of it: parts move while others are still to be
    read."""
    if dst is None or src.address >= dst.address + dst.nbytes or dst.address >= src.address + src.nbytes:
        return None
    copy = ctypes.create_string_buffer(src.nbytes)
    ctypes.memmove(copy, src.address, src.nbytes)
    shift = ctypes.addressof(copy) - src.address
    plan.ins = [(address + shift, nbytes) for address, nbytes in plan.ins]
    return copy


def _announce(run_dir: str, uid: int) -> None:
    try:
        folder = os.path.join(run_dir, "mailboxes")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "%016x" % uid), "w"):
            pass
    except OSError:
        pass  # only a hint: the proxy finds the mailbox by itself, a little later
