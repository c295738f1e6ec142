"""SEND and RECV: matched by sender, receiver and tag in the order of posting; a RECV may take any sender.

A RECV that is DONE says whose chunk it took (its result words), and stays so until the sender's slot is
RELEASED; so a chunk is delivered once, whichever proxy is killed when.
"""

from __future__ import annotations

from midstep.mailbox.contract import Kind
from midstep.mailbox.layout import State
from midstep.proxy.boxes import Posted
from midstep.proxy.counters import Counters
from midstep.proxy.groups import Bytes, Group, Offer, PairKey
from midstep.proxy.match import Links
from midstep.wire.proxy import MARK, FrameType, Head


class Pairs:
    """Carries the SENDs and RECVs of all groups of this node."""

    def __init__(self, links: Links, counters: Counters) -> None:
        self._links = links
        self._counters = counters

    def posted(self, group: Group, post: Posted, done: bool) -> None:
        """A member's slot is POSTED, or was found DONE."""
        if post.body.kind == Kind.SEND:
            if done:
                post.box.release(post.slot)
            else:
                self._sent(group, post)
        elif done:
            peer, number = post.box.result(post.slot)
            key = (peer, number, post.body.chunk)
            group.received[key] = post
            if group.node_of[peer] != group.own:
                self._mark(group, peer, FrameType.P2P_ACK, key)
            elif key in group.offers:
                self._settle(group, key, group.offers.pop(key))
        elif post not in (waiting := group.wanted.setdefault(post.me, [])):
            waiting.append(post)
            self.match(group, post.me)
            self.check_dead(group)

    def found(self, group: Group) -> None:
        """All local members are here: a RECV that is done and whose local sender has no slot was released."""
        for key, post in list(group.received.items()):
            if group.node_of[key[0]] == group.own and key not in group.offers:
                del group.received[key]
                post.box.release(post.slot)

    def offered(self, group: Group, node: int, head: Head, data: Bytes) -> None:
        """A chunk came from another node."""
        key = (head.root, head.seq, head.chunk)
        if key in group.received:
            self._mark(group, head.root, FrameType.P2P_ACK, key)
            return
        group.offers[key] = Offer(head, data, None, node)
        self.match(group, head.peer)

    def acknowledged(self, group: Group, node: int, key: PairKey) -> None:
        """A chunk was received on another node; ``node`` waits to hear that its sender knows."""
        post = group.sent.pop(key, None)
        if post is not None:
            post.box.finish(post.slot)
            post.box.release(post.slot)
            post.box.wake()
            self._counters.carried((post,), self._counters.clock())
        self._links.mark(node, FrameType.P2P_FIN, MARK.pack(group.gid, key[1], key[2], key[0]))

    def finished(self, group: Group, key: PairKey) -> None:
        """A sender on another node knows that its chunk was received."""
        post = group.received.pop(key, None)
        if post is not None:
            post.box.release(post.slot)

    def refused(self, group: Group, key: PairKey, text: str) -> None:
        """A chunk cannot be received on another node."""
        post = group.sent.pop(key, None)
        if post is not None:
            post.box.fail(post.slot, text)

    def announce(self, group: Group, node: int) -> None:
        """Say everything again to a node whose proxy is new."""
        for key in [key for key, offer in group.offers.items() if offer.node == node]:
            del group.offers[key]
        for post in group.sent.values():
            if group.node_of[post.body.peer] == node:
                self._send(group, post, node)
        for key in group.received:
            if group.node_of[key[0]] == node:
                self._mark(group, key[0], FrameType.P2P_ACK, key)

    def check_dead(self, group: Group) -> None:
        """Fail what waits for members that have ended."""
        for dead, how in group.dead.items():
            text = f"{group.title()}: rank {group.ranks[dead]} {how}"
            for posts in group.wanted.values():
                for post in [p for p in posts if p.body.peer == dead]:
                    posts.remove(post)
                    post.box.fail(post.slot, text)
            for key, offer in list(group.offers.items()):
                if offer.post is not None and offer.head.peer == dead:
                    del group.offers[key]
                    offer.post.box.fail(offer.post.slot, text)
            for key, post in list(group.sent.items()):
                if post.body.peer == dead:
                    del group.sent[key]
                    post.box.fail(post.slot, text)

    def match(self, group: Group, receiver: int) -> None:
        """Deliver what can be delivered to a member, in the order of its RECVs."""
        waiting = group.wanted.get(receiver)
        if not waiting or not group.offers:
            return
        for post in list(waiting):
            key = _wanted(group, post)
            if key is not None:
                waiting.remove(post)
                self._deliver(group, post, key, group.offers.pop(key))

    def _sent(self, group: Group, post: Posted) -> None:
        body = post.body
        key = (post.me, body.seq, body.chunk)
        if key in group.offers or key in group.sent:
            return
        node = group.node_of[body.peer]
        if node != group.own:
            group.sent[key] = post
            self._send(group, post, node)
            self.check_dead(group)
            return
        offer = Offer(_head(group, post), None, post, node)
        if key in group.received:
            self._settle(group, key, offer)
            return
        group.offers[key] = offer
        self.match(group, body.peer)
        self.check_dead(group)

    def _deliver(self, group: Group, post: Posted, key: PairKey, offer: Offer) -> None:
        started = self._counters.clock()
        data = offer.data if offer.post is None else offer.post.source
        if offer.head.total != post.body.total or data is None or len(data) != post.body.out_len:
            self._refuse(group, post, key, offer)
            return
        post.out[:] = data
        post.box.answer(post.slot, key[0], key[1])
        post.box.finish(post.slot)
        group.received[key] = post
        if offer.post is None:
            self._mark(group, key[0], FrameType.P2P_ACK, key)
        else:
            self._settle(group, key, offer)
        post.box.wake()
        self._counters.carried((post,), started)

    def _settle(self, group: Group, key: PairKey, offer: Offer) -> None:
        """Both ends are here, the receiver has the chunk."""
        post, sender = group.received.pop(key), offer.post
        if sender is not None:
            if sender.box.state(sender.slot) == State.POSTED:
                sender.box.finish(sender.slot)
            sender.box.release(sender.slot)
            sender.box.wake()
        post.box.release(post.slot)

    def _refuse(self, group: Group, post: Posted, key: PairKey, offer: Offer) -> None:
        sender, receiver = group.ranks[key[0]], group.ranks[post.me]
        text = (
            f"{group.title()}: rank {sender} sends {offer.head.total} bytes (tag {offer.head.tag}), "
            f"rank {receiver} receives {post.body.total}"
        )
        post.box.fail(post.slot, text)
        if offer.post is not None:
            offer.post.box.fail(offer.post.slot, text)
            return
        data = text.encode()
        head = offer.head._replace(type=int(FrameType.P2P_FAIL), length=len(data))
        self._links.send(offer.node, head, [data])

    def _send(self, group: Group, post: Posted, node: int) -> None:
        self._links.send(node, _head(group, post), [post.source])

    def _mark(self, group: Group, sender: int, kind: FrameType, key: PairKey) -> None:
        self._links.mark(group.node_of[sender], kind, MARK.pack(group.gid, key[1], key[2], key[0]))


def _wanted(group: Group, post: Posted) -> PairKey | None:
    """Which offer a RECV takes now."""
    body = post.body
    if body.match:
        key = (body.peer, body.match - 1, body.chunk)
        return key if key in group.offers else None
    for key, offer in group.offers.items():
        head = offer.head
        if key[2] == 0 and head.peer == post.me and head.tag == body.tag and body.peer in (-1, key[0]):
            return key
    return None


def _head(group: Group, post: Posted) -> Head:
    body = post.body
    return Head(
        FrameType.P2P,
        kind=body.kind,
        dtype=body.dtype,
        gid=group.gid,
        seq=body.seq,
        chunk=body.chunk,
        chunks=body.chunks,
        root=post.me,
        peer=body.peer,
        tag=body.tag,
        total=body.total,
        length=body.in_len,
    )
