"""Nodes whose engines are stepped by hand in one process: what overtakes what is then the test's to say.

What a node sends another stays under way until ``carry``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

import numpy as np

from midstep.mailbox.channel import MailboxChannel
from midstep.proxy.boxes import Box
from midstep.proxy.engine import Engine
from midstep.proxy.peers import Link, Peer, Piece
from midstep.wire.proxy import HEAD, Head


class Wire(Link):
    """The way from one node to another: what is sent waits here."""

    def __init__(self, node: int) -> None:  # no socket: the rest of Link is not used
        self.node = node
        self.port = 0
        self.up = True
        self.under_way: deque[bytes] = deque()

    def send(self, pieces: list[Piece]) -> None:
        self.under_way.append(b"".join(bytes(piece) for piece in pieces))

    def close(self) -> None:
        self.up = False


class Nodes:
    """Connected nodes that have their ranks where ``placement`` says; rank N's channel is ``channels[N]``.
    Use as ``with Nodes([[0, 1], [2]]) as nodes``.
    """

    def __init__(self, placement: Sequence[Sequence[int]]) -> None:
        self.size = sum(len(ranks) for ranks in placement)
        self.channels = [MailboxChannel(rank, self.size) for rank in range(self.size)]
        self.engines: list[Engine] = []
        self._here = [list(ranks) for ranks in placement]
        self._peers = [Peer(index, "", 0, tuple(ranks)) for index, ranks in enumerate(placement)]
        self._boxes: dict[int, Box] = {}
        self._wires: dict[tuple[int, int], Wire] = {}
        for index in range(len(placement)):
            self.engines.append(self._engine(index))
            for other in range(index):
                self._connect(index, other)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self.channels:
            channel.close()
        for box in self._boxes.values():
            box.close()

    def look(self, *nodes: int) -> None:
        """Have nodes handle all that their ranks have posted, and nothing else."""
        for index in nodes:
            self.engines[index].settle()

    def idle(self, *nodes: int) -> None:
        """What nodes do when there is nothing to do: say what they have gathered, let go what they can."""
        for index in nodes:
            self.engines[index].wires.flush()
            self.engines[index].membership.sweep()

    def carry(self, sender: int, receiver: int) -> int:
        """Deliver all that one node has sent another; how many frames."""
        waiting = self._wires[sender, receiver].under_way
        count = len(waiting)
        for _ in range(count):
            frame = waiting.popleft()
            head = Head._make(HEAD.unpack_from(frame))
            data = np.frombuffer(frame, np.uint8, head.length, HEAD.size).copy()
            self.engines[receiver].frames.frame(self._wires[receiver, sender], head, data)
        return count

    def run(self) -> None:
        """Go on until nothing moves any more."""
        everyone = range(len(self.engines))
        while True:
            self.look(*everyone)
            self.idle(*everyone)
            if not sum(self.carry(*pair) for pair in self._wires):
                return

    def leave(self, rank: int) -> None:
        """A rank's process ends; its node notices at once."""
        self._here = [[other for other in ranks if other != rank] for ranks in self._here]
        self.engines[self._node(rank)].detach(
            self._boxes.pop(rank), "cannot take part: its process has ended"
        )

    def replace(self, index: int) -> None:
        """A node's proxy is killed, with all that it had sent and was sent, and another one started."""
        for box in self.engines[index].boxes:
            box.close()
        self.engines[index] = self._engine(index)
        for other in range(len(self.engines)):
            if other != index:
                self._connect(index, other)

    def _node(self, rank: int) -> int:
        return next(peer.index for peer in self._peers if rank in peer.ranks)

    def _engine(self, index: int) -> Engine:
        engine = Engine(index, None)
        for rank in self._here[index]:
            fd = os.dup(self.channels[rank].core.file.fd)
            self._boxes[rank] = Box(fd, rank, 1)
            engine.attach(self._boxes[rank])
        engine.membership.ended.update(set(self._peers[index].ranks) - set(self._here[index]))
        engine.frames.expect(self._peers, index)
        return engine

    def _connect(self, one: int, other: int) -> None:
        for here, there in ((one, other), (other, one)):
            wire = self._wires[here, there] = Wire(there)
            self.engines[here].frames.link(wire)
