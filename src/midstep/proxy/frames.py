"""What comes from other nodes' proxies, and what a new one is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from midstep.proxy.counters import Counters
from midstep.proxy.groups import Group
from midstep.proxy.match import Collectives
from midstep.proxy.membership import Membership
from midstep.proxy.pairs import Pairs
from midstep.proxy.peers import Link, Peer
from midstep.proxy.requests import Requests
from midstep.proxy.wires import Wires
from midstep.wire.proxy import MARK, FrameType, Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_log = logging.getLogger(__name__)
_NOTHING: Bytes = np.empty(0, np.uint8)


class Frames:
    """Used by the engine's thread only."""

    def __init__(
        self,
        wires: Wires,
        membership: Membership,
        collectives: Collectives,
        pairs: Pairs,
        requests: Requests,
        counters: Counters,
    ) -> None:
        self.peers: dict[int, Peer] = {}
        self.on_marker: Callable[[], None] | None = None
        self._wires, self._membership, self._requests = wires, membership, requests
        self._collectives, self._pairs, self._counters = collectives, pairs, counters
        self._early: dict[int, list[tuple[int, Head, Bytes]]] = {}  # by gid: not all local members are here

    def link(self, link: Link) -> None:
        """A connection came up or went down."""
        links = self._wires.links
        known = links.get(link.node)
        if not link.up:
            if known is link:
                del links[link.node]
            return
        if known is not None and known is not link:
            known.close()
        links[link.node] = link
        self._wires.marked.discard(link.node)
        if self._wires.muted:
            self._wires.say_markers([link.node])
        else:
            self.announce(link.node)
        self._marker()

    def announce(self, node: int) -> None:
        """Say everything to a node whose proxy (or connection) is new."""
        for group in list(self._membership.groups.values()):
            if node in group.remote:
                self._collectives.announce(group, node)
                self._pairs.announce(group, node)
                self._membership.say_dead(group, node)
        self._requests.announce(node)

    def expect(self, peers: Sequence[Peer], own: int) -> None:
        """Who the job's nodes are, this one among them or not."""
        self.peers = {peer.index: peer for peer in peers if peer.index != own}
        for node, link in list(self._wires.links.items()):
            if node not in self.peers or self.peers[node].port != link.port:
                del self._wires.links[node]
                link.close()
        for peer in peers:
            for rank in peer.ranks:
                self._membership.place(rank, peer.index)
            if peer.leader and peer.index != self._requests.leader:
                self._requests.leader = peer.index
                self._requests.announce(peer.index)

    def frame(self, link: Link, head: Head, data: Bytes) -> None:
        """A frame came; from a connection that was replaced it is dropped."""
        node = link.node
        if self._wires.links.get(node) is not link:
            return
        self._counters.received_bytes += head.length
        kind = head.type
        if kind in (FrameType.ACK, FrameType.P2P_ACK, FrameType.P2P_FIN):
            self._marks(node, kind, data.tobytes())
        elif kind == FrameType.MARKER:
            self._wires.marked.add(node)
            self._marker()
        elif FrameType.STORE_ASK <= kind <= FrameType.STORE_FAIL:
            self._requests.frame(node, head, data)
        else:
            self._of_group(node, head, data)

    def settled(self, group: Group) -> None:
        """All local members of a group are here: take what came before."""
        if not group.private:
            for node, head, data in self._early.pop(group.gid, []):
                self._of_group(node, head, data)

    def _marker(self) -> None:
        if self.on_marker is not None:
            self.on_marker()

    def _marks(self, node: int, kind: int, data: bytes) -> None:
        for gid, seq, chunk, sender in MARK.iter_unpack(data):
            group = self._membership.groups.get((-1, gid))
            if kind == FrameType.P2P_ACK:
                head = Head(FrameType.P2P_ACK, gid=gid, seq=seq, chunk=chunk, root=sender)
                self._of_group(node, head, _NOTHING)
            elif group is not None and kind == FrameType.ACK:
                self._collectives.acknowledged(group, node, seq, chunk)
            elif group is not None:
                self._pairs.finished(group, (sender, seq, chunk))

    def _of_group(self, node: int, head: Head, data: Bytes) -> None:
        group = self._membership.groups.get((-1, head.gid))
        if group is None or not group.settled:
            self._early.setdefault(head.gid, []).append((node, head, data))
            return
        match head.type:
            case FrameType.OP:
                self._collectives.frame(group, node, head, data)
            case FrameType.P2P:
                self._pairs.offered(group, node, head, data)
            case FrameType.P2P_ACK:
                self._pairs.acknowledged(group, node, (head.root, head.seq, head.chunk))
            case FrameType.P2P_FAIL:
                self._pairs.refused(group, (head.root, head.seq, head.chunk), _text(data))
            case FrameType.OP_FAIL:
                self._collectives.failed_elsewhere(group, node, head, _text(data))
            case FrameType.DEAD:
                self._membership.died(group, head.peer, _text(data))
            case _:
                _log.warning("node %d sent a frame of unknown type %d", node, head.type)


def _text(data: Bytes) -> str:
    return data.tobytes().decode("utf-8", "replace")
