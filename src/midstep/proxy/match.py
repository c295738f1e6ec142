"""Collectives: members' posts come together, nodes' frames come together, results are committed.

An operation commits on a node when all local members have posted and the frame of every other participating
node is here: outputs first, then DONE in every local slot, then an acknowledgement to the other nodes. When
all nodes have acknowledged, nobody needs the inputs any more: RELEASED. A proxy that is killed between any
two of these steps leaves slots from which the next one goes on; whatever is not RELEASED is announced again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from midstep.mailbox.contract import Kind
from midstep.mailbox.layout import State
from midstep.proxy.boxes import Posted, wake_all
from midstep.proxy.counters import Counters
from midstep.proxy.direct import Direct, is_in_place
from midstep.proxy.errors import Mismatch
from midstep.proxy.exchange import payload
from midstep.proxy.execute import execute
from midstep.proxy.groups import Group, Operation, agree, alike, describe
from midstep.proxy.verdict import contradiction, objection
from midstep.wire.proxy import FLAG_BAD, FLAG_DONE, MARK, FrameType, Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Links(Protocol):
    """The way to other nodes' proxies. What is sent to one that is not connected is dropped: it is announced
    again."""

    def send(self, node: int, head: Head, pieces: Sequence[bytes | Bytes]) -> None: ...
    def mark(self, node: int, kind: FrameType, mark: bytes) -> None:
        """Send an acknowledgement soon, together with others."""
        ...


class Collectives:
    """Carries the collectives of all groups of this node."""

    def __init__(self, links: Links, counters: Counters) -> None:
        self._links = links
        self._counters = counters
        self._direct = Direct(counters, self.fail)

    def posted(self, group: Group, post: Posted, done: bool) -> None:
        """A member's slot is POSTED, or was found DONE."""
        body = post.body
        if body.seq in group.failed:
            post.box.fail(post.slot, group.failed[body.seq])
            return
        key = (body.seq, body.chunk)
        op = group.ops.get(key)
        if op is None:
            op = group.ops[key] = Operation(body.seq, body.chunk)
        elif post.me in op.arrived:
            return
        op.arrived[post.me] = post
        if len(op.arrived) == len(group.local):
            self._complete(group, op)
        elif group.dead and not done:
            self.check_dead(group, op)

    def found(self, group: Group) -> None:
        """All local members are here for the first time: settle what an earlier proxy left."""
        for op in list(group.ops.values()):
            if not op.complete and any(_state(p) == State.DONE for p in op.arrived.values()):
                # A member without a slot was released: so everybody had the result.
                self._complete(group, op)

    def frame(self, group: Group, node: int, head: Head, data: Bytes) -> None:
        """Another node's part."""
        op = group.ops.get((head.seq, head.chunk))
        if head.flags & FLAG_DONE and op is None:
            self._acknowledge(group, node, head.seq, head.chunk)  # finished and forgotten here
            return
        if head.seq in group.failed:
            return
        for me in group.remote[node]:
            group.dead.pop(me, None)  # it has opened the group again
        if op is None:
            op = group.ops[head.seq, head.chunk] = Operation(head.seq, head.chunk)
        if op.done:
            self._acknowledge(group, node, head.seq, head.chunk)
        else:
            op.frames[node] = (head, data)
            self._try_commit(group, op)

    def acknowledged(self, group: Group, node: int, seq: int, chunk: int) -> None:
        """Another node has the result."""
        op = group.ops.get((seq, chunk))
        if op is not None:
            op.acks.add(node)
            self._try_release(group, op)

    def announce(self, group: Group, node: int) -> None:
        """Say everything again to a node whose proxy is new."""
        for op in list(group.ops.values()):
            if op.complete:
                self._send(group, op, node)

    def check_dead(self, group: Group, op: Operation) -> None:
        """Fail an operation that a member which has ended did not post."""
        if op.done:
            return
        for me, how in group.dead.items():
            node = group.node_of[me]
            absent = me not in op.arrived if node == group.own else node not in op.frames
            if absent:
                self.fail(group, op, f"{group.title()}, operation {op.seq}: rank {group.ranks[me]} {how}")
                return

    def failed_elsewhere(self, group: Group, node: int, head: Head, text: str) -> None:
        """Another node could not carry the operation out."""
        op = group.ops.get((head.seq, head.chunk))
        if op is not None and op.done:
            self.acknowledged(group, node, head.seq, head.chunk)
            return
        group.failed.setdefault(head.seq, text)
        for key in [key for key in group.ops if key[0] == head.seq]:
            self.fail(group, group.ops[key], text)

    def fail(self, group: Group, op: Operation, text: str) -> None:
        """Fail every local member's post, now and later."""
        group.failed[op.seq] = text
        group.ops.pop((op.seq, op.chunk), None)
        for post in op.arrived.values():
            post.box.fail(post.slot, text)

    def advance(self) -> bool:
        """Go on with what takes long; whether there is any."""
        return self._direct.advance()

    def _complete(self, group: Group, op: Operation) -> None:
        op.complete = True
        posts = op.arrived.values()
        in_place = is_in_place(posts)
        if in_place and (group.remote or not all(post.body.source for post in posts)):
            self._direct.ask_again(group, op)
            return
        if all(_state(post) == State.DONE for post in posts):
            op.done = True
            if len(op.arrived) < len(group.local):  # the others were released, so every node has the result
                self._release(group, op)
                return
        if group.remote:
            for node in group.remote:
                self._send(group, op, node)
            if op.done:
                self._try_release(group, op)
            else:
                self._try_commit(group, op)
            return
        if op.done:
            self._release(group, op)
            return
        first, *others = posts
        if not all(alike(first, other) for other in others):
            head = describe(first, group)
            if not all(agree(head, describe(other, group)) for other in others):
                self.fail(group, op, contradiction(group, op))
                return
        if in_place:
            self._direct.start(group, op)
        else:
            self._commit(group, op)

    def _send(self, group: Group, op: Operation, node: int) -> None:
        heads = [describe(post, group) for post in op.arrived.values()]
        flags = FLAG_DONE if op.done else 0
        pieces: Sequence[bytes | Bytes] = []
        if not all(agree(heads[0], head) for head in heads):
            flags |= FLAG_BAD
            pieces = [contradiction(group, op).encode()]
        else:
            try:
                pieces = payload(group, op, node)
            except Mismatch as error:
                flags |= FLAG_BAD
                pieces = [f"{group.title()}, operation {op.seq}: {error}".encode()]
        head = heads[0]._replace(type=int(FrameType.OP), flags=flags, length=sum(len(p) for p in pieces))
        if head.kind == Kind.ALLTOALL:
            head = head._replace(chunks=max(post.body.chunks for post in op.arrived.values()))
        self._links.send(node, head, pieces)

    def _try_commit(self, group: Group, op: Operation) -> None:
        if op.complete and not op.done and len(op.frames) == len(group.remote):
            text = objection(group, op)
            if text:
                self.fail(group, op, text)
            else:
                self._commit(group, op)
        elif group.dead:
            self.check_dead(group, op)

    def _commit(self, group: Group, op: Operation) -> None:
        started = self._counters.clock()
        try:
            execute(group, op)
        except (Mismatch, ValueError) as error:
            text = f"{group.title()}, operation {op.seq}: {error}"
            for node in group.remote:
                data = text.encode()
                head = Head(FrameType.OP_FAIL, gid=group.gid, seq=op.seq, chunk=op.chunk, length=len(data))
                self._links.send(node, head, [data])
            self.fail(group, op, text)
            return
        posts = op.arrived.values()
        for post in posts:
            post.box.finish(post.slot)
        op.done = True
        if group.remote:
            op.frames = {}
            for node in group.remote:
                self._acknowledge(group, node, op.seq, op.chunk)
            self._try_release(group, op)
        else:
            del group.ops[op.seq, op.chunk]
            for post in posts:
                post.box.release(post.slot)
        wake_all([post.box for post in posts])
        self._counters.carried(posts, started)

    def _acknowledge(self, group: Group, node: int, seq: int, chunk: int) -> None:
        self._links.mark(node, FrameType.ACK, MARK.pack(group.gid, seq, chunk, -1))

    def _try_release(self, group: Group, op: Operation) -> None:
        if op.done and len(op.acks) == len(group.remote):
            self._release(group, op)

    def _release(self, group: Group, op: Operation) -> None:
        group.ops.pop((op.seq, op.chunk), None)
        for post in op.arrived.values():
            post.box.release(post.slot)
            post.box.wake()  # it may have too many slots that wait for this


def _state(post: Posted) -> int:
    return post.box.state(post.slot)
