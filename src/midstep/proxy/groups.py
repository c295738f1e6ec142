"""Groups and operations as far as this node knows them; all of it can be read back from the mailboxes."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

import numpy as np

from midstep.mailbox.contract import DType, Kind, ReduceOp
from midstep.mailbox.layout import Body
from midstep.proxy.boxes import Box, Posted
from midstep.proxy.tree import Range
from midstep.wire.proxy import Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
GroupKey = tuple[int, int]  # -1 or, for a private world, the rank whose tree it is in; gid
OpKey = tuple[int, int]  # seq, chunk
PairKey = tuple[int, int, int]  # sender, its seq, chunk
_DESCRIPTION = slice(Body._fields.index("kind"), Body._fields.index("root") + 1)
_BY_PARTS = (Kind.ALLGATHER, Kind.GATHER, Kind.SCATTER, Kind.REDUCE_SCATTER)


class Operation:
    """One chunk of a collective."""

    __slots__ = ("seq", "chunk", "arrived", "frames", "partials", "complete", "done", "acks", "since_s")

    def __init__(self, seq: int, chunk: int) -> None:
        self.seq = seq
        self.chunk = chunk
        self.arrived: dict[int, Posted] = {}
        self.frames: dict[int, tuple[Head, Bytes]] = {}  # by node
        self.partials: dict[Range, Bytes] | None = None
        self.complete = False  # every local member is in ``arrived``
        self.done = False  # every local member has its output
        self.acks: set[int] = set()  # nodes that have
        self.since_s = time.monotonic()


@dataclass(slots=True)
class Offer:
    """A chunk of a SEND: of a local member (``post``) or of another node (``head`` and ``data``)."""

    head: Head
    data: Bytes | None
    post: Posted | None
    node: int
    since_s: float = field(default_factory=time.monotonic)


class Group:
    """An ordered list of ranks. ``nodes`` are known once every rank's node is."""

    def __init__(self, gid: int, world: str, name: str, ranks: list[int], own: int) -> None:
        self.gid = gid
        self.world = world
        self.name = name
        self.ranks = ranks
        self.size = len(ranks)
        self.own = own
        self.node_of: list[int] = []  # by member
        self.local: tuple[int, ...] = ()
        self.remote: dict[int, tuple[int, ...]] = {}  # other nodes and their members
        self.members: dict[int, tuple[Box, int]] = {}  # local ones: mailbox and slot of the definition
        self.ops: dict[OpKey, Operation] = {}
        self.failed: dict[int, str] = {}  # seq -> why
        self.dead: dict[int, str] = {}  # member -> how
        self.key: GroupKey = (-1, gid)
        self.private = False  # a world inside one rank's process tree
        self.settled = False  # all local members were here once
        self.me_of: dict[int, int] = {}  # mailbox's uid -> member
        self.offers: dict[PairKey, Offer] = {}
        self.wanted: dict[int, list[Posted]] = {}  # receiver -> RECVs in the order of posting
        self.received: dict[PairKey, Posted] = {}  # RECVs that are done, their sender does not know it yet
        self.sent: dict[PairKey, Posted] = {}  # SENDs to other nodes, not acknowledged
        self.absent: set[int] = set()  # local ones that ended before this proxy began: no mailbox of theirs
        self.closing: set[int] = set()  # members that have closed it, with chunks under way
        self.closed: set[int] = set()

    def place(self, node_of: list[int]) -> None:
        """Say on which node each member is."""
        self.node_of = node_of
        self.local = tuple(me for me, node in enumerate(node_of) if node == self.own)
        self.remote = {}
        for me, node in enumerate(node_of):
            if node != self.own:
                self.remote[node] = (*self.remote.get(node, ()), me)

    @property
    def placed(self) -> bool:
        return bool(self.node_of)

    @property
    def present(self) -> bool:
        """Whether every local member's mailbox is open, but for those that have ended."""
        return self.placed and len(self.members) + len(self.absent) == len(self.local)

    def pairs_of(self, me: int) -> bool:
        """Whether SENDs or RECVs of a member are under way."""
        return (
            bool(self.wanted.get(me))
            or any(post.me == me for post in self.received.values())
            or any(key[0] == me for key in self.sent)
            or any(key[0] == me for key, offer in self.offers.items() if offer.post is not None)
        )

    def owes(self) -> bool:
        """Whether another node has not acknowledged what a member here has the result of: if its proxy goes
        before it does, it has to be told again.
        """
        away = [node for node, members in self.remote.items() if any(me not in self.dead for me in members)]
        return any(op.done and not op.acks.issuperset(away) for op in self.ops.values()) or any(
            self.node_of[key[0]] in away for key in self.received
        )

    def names(self, members: tuple[int, ...]) -> str:
        """Members as ranks of the world, in words."""
        return f"rank{'s' if len(members) > 1 else ''} {', '.join(str(self.ranks[me]) for me in members)}"

    def title(self) -> str:
        """The group in words."""
        return f"group {self.name or 'default'!r} of world {self.world!r}"


def describe(post: Posted, group: Group) -> Head:
    """What all members of an operation must agree on, as the head of a frame."""
    body = post.body
    kind = body.kind
    by_parts = kind in _BY_PARTS
    check = 0
    if by_parts and body.splits:
        check = zlib.crc32(repr(post.box.numbers(body)[0]).encode())
    reducing = kind in (Kind.ALLREDUCE, Kind.REDUCE, Kind.REDUCE_SCATTER)
    rooted = kind in (Kind.REDUCE, Kind.BROADCAST, Kind.GATHER, Kind.SCATTER)
    return Head(
        0,
        0,
        kind,
        body.dtype,
        body.reduce if reducing else 0,
        0,
        group.gid,
        body.seq,
        body.chunk,
        body.chunks,
        body.root if rooted else 0,
        0,
        0,
        0 if kind == Kind.ALLTOALL else body.total,
        check,
    )


def alike(left: Posted, right: Posted) -> bool:
    """Whether two members say plainly the same, so that their heads would agree."""
    mine, other = left.body, right.body
    plain = not (mine.splits or other.splits)
    return plain and mine.total == other.total and mine[_DESCRIPTION] == other[_DESCRIPTION]


def agree(left: Head, right: Head) -> bool:
    """Whether two members describe the same operation."""
    if left.kind != right.kind or left.dtype != right.dtype or left.reduce != right.reduce:
        return False
    return left.root == right.root and left.total == right.total and left.check == right.check


def words(head: Head) -> str:
    """An operation in words."""
    kind, dtype = Kind(head.kind), DType(head.dtype)
    text = f"{kind.name} of {head.total} bytes, {dtype.name}" if kind != Kind.BARRIER else "BARRIER"
    if kind in (Kind.ALLREDUCE, Kind.REDUCE, Kind.REDUCE_SCATTER):
        text += f", {ReduceOp(head.reduce).name}"
    if kind in (Kind.REDUCE, Kind.BROADCAST, Kind.GATHER, Kind.SCATTER):
        text += f", root {head.root}"
    return text + (f", splits #{head.check:08x}" if head.check else "")


def disagreement(group: Group, seq: int, said: dict[tuple[int, ...], Head]) -> str:
    """Which ranks posted what, for a failed operation."""
    parts = [f"{group.names(members)}: {words(head)}" for members, head in sorted(said.items())]
    return f"{group.title()}, operation {seq}: the ranks do not agree: " + "; ".join(parts)
