"""Store requests of this node's ranks: answered by the store here, or passed to the leader's proxy."""

from __future__ import annotations

import numpy as np

from midstep.mailbox.layout import FLAG_CANCEL, State
from midstep.proxy.boxes import Box, Posted
from midstep.proxy.store import Asker, Store
from midstep.proxy.wires import Wires
from midstep.wire.proxy import ASKED, FrameType, Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Requests:
    """``store`` is None except at the leader; ``leader`` is the node that has it."""

    def __init__(self, wires: Wires, store: Store | None, own: int) -> None:
        self._wires = wires
        self.store = store
        self.leader = own if store is not None else -1
        self._pending: dict[Asker, Posted] = {}
        self._far: dict[Asker, int] = {}  # askers on other nodes whose requests wait here

    @property
    def pending(self) -> int:
        """How many requests of local ranks wait."""
        return len(self._pending)

    def posted(self, post: Posted) -> None:
        """A request's slot is POSTED, or is named again because its asker has given up."""
        asker = (post.box.uid, post.body.stamp)
        if post.box.flags(post.slot) & FLAG_CANCEL:
            self._cancel(asker, post)
        elif asker not in self._pending:
            self._pending[asker] = post
            self._ask(asker, post)

    def announce(self, node: int) -> None:
        """Ask again: the leader's proxy is new."""
        if node == self.leader:
            for asker, post in list(self._pending.items()):
                self._ask(asker, post)

    def forget(self, box: Box) -> None:
        """A mailbox is gone."""
        for asker in [asker for asker, post in self._pending.items() if post.box is box]:
            del self._pending[asker]
            self._give_up(asker)

    def frame(self, node: int, head: Head, data: Bytes) -> None:
        """A STORE_ frame came."""
        raw = data.tobytes()
        uid, stamp, lowest = ASKED.unpack_from(raw, 0)
        rest = raw[ASKED.size :]
        match head.type:
            case FrameType.STORE_ASK:
                self._answer_far(node, uid, stamp, lowest, rest)
            case FrameType.STORE_CANCEL:
                self._far.pop((uid, stamp), None)
                if self.store is not None:
                    self.store.cancel(uid, stamp)
            case FrameType.STORE_REPLY:
                self._reply((uid, stamp), rest)
            case _:
                self._fail((uid, stamp), rest.decode("utf-8", "replace"))

    def _ask(self, asker: Asker, post: Posted) -> None:
        request = post.source.tobytes()
        lowest = post.body.match
        if self.store is None:
            data = ASKED.pack(*asker, lowest) + request
            self._wires.send(self.leader, Head(FrameType.STORE_ASK, length=len(data)), [data])
            return
        try:
            reply = self.store.ask(*asker, lowest, request)
        except ValueError as error:
            self._fail(asker, f"store: {error}")
        else:
            if reply is not None:
                self._reply(asker, reply)
            self._settled()

    def _answer_far(self, node: int, uid: int, stamp: int, lowest: int, request: bytes) -> None:
        if self.store is None:
            return  # it will ask the leader when its agent has told it who that is
        try:
            reply = self.store.ask(uid, stamp, lowest, request)
        except ValueError as error:
            self._say(node, FrameType.STORE_FAIL, (uid, stamp), f"store: {error}".encode())
            return
        if reply is None:
            self._far[uid, stamp] = node
        else:
            self._say(node, FrameType.STORE_REPLY, (uid, stamp), reply)
        self._settled()

    def _settled(self) -> None:
        assert self.store is not None
        settled, self.store.settled = self.store.settled, []
        for asker, reply in settled:
            node = self._far.pop(asker, None)
            if node is None:
                self._reply(asker, reply)
            else:
                self._say(node, FrameType.STORE_REPLY, asker, reply)

    def _say(self, node: int, kind: FrameType, asker: Asker, text: bytes) -> None:
        data = ASKED.pack(*asker, 0) + text
        self._wires.send(node, Head(kind, length=len(data)), [data])

    def _reply(self, asker: Asker, reply: bytes) -> None:
        post = self._pending.pop(asker, None)
        if post is None:
            return
        room = min(len(reply), post.body.out_len)
        if room:
            post.out[:room] = np.frombuffer(reply, np.uint8, room)
        post.box.answer(post.slot, -1, len(reply))
        post.box.release(post.slot)
        post.box.wake()

    def _fail(self, asker: Asker, text: str) -> None:
        post = self._pending.pop(asker, None)
        if post is not None:
            post.box.fail(post.slot, text)

    def _cancel(self, asker: Asker, post: Posted) -> None:
        self._pending.pop(asker, None)
        self._give_up(asker)
        if post.box.state(post.slot) == State.POSTED:
            post.box.fail(post.slot, "given up")

    def _give_up(self, asker: Asker) -> None:
        if self.store is not None:
            self.store.cancel(*asker)
        else:
            data = ASKED.pack(*asker, 0)
            self._wires.send(self.leader, Head(FrameType.STORE_CANCEL, length=len(data)), [data])
