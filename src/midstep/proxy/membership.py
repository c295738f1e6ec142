"""Which groups there are, which of their members' mailboxes are open here, and on which node each member
is."""

from __future__ import annotations

import json
from collections.abc import Callable

from midstep.mailbox.layout import State
from midstep.proxy.boxes import Box
from midstep.proxy.direct import allow
from midstep.proxy.groups import Group, GroupKey
from midstep.proxy.match import Collectives
from midstep.proxy.pairs import Pairs
from midstep.proxy.wires import Wires
from midstep.wire.proxy import FrameType, Head

OWN_WORLD = (
    "env://"  # the job's own world: its ranks are job ranks; all others live in one rank's process tree
)


class Membership:
    """``placed(group)`` is called when a group's nodes become known, ``settled`` when all its local members
    are here for the first time."""

    def __init__(
        self,
        index: int,
        wires: Wires,
        collectives: Collectives,
        pairs: Pairs,
        placed: Callable[[Group], None],
        settled: Callable[[Group], None],
    ) -> None:
        self.groups: dict[GroupKey, Group] = {}
        self.ended: set[int] = set()  # job ranks of this node that have no process any more
        self._index = index
        self._wires = wires
        self._collectives = collectives
        self._pairs = pairs
        self._on_placed, self._on_settled = placed, settled
        self._nodes: dict[int, int] = {}  # job rank -> node

    def define(self, box: Box, slot: int) -> Group:
        """A mailbox's definition of a group, open or closed. ``look`` at it next."""
        body = box.body(slot)
        said = json.loads(box.array(body.block, body.in_len).tobytes())
        own = said["world"].startswith(OWN_WORLD)
        key = (-1 if own else box.tree, body.gid)
        group = self.groups.get(key)
        if group is None:
            group = Group(body.gid, said["world"], said["name"], said["ranks"], self._index)
            group.private = not own
            group.key = key
            self.groups[key] = group
        me = said["me"]
        before, old = group.members.get(me, (None, slot))
        if before is not box:
            group.dead.pop(me, None)
        elif old != slot and box.state(old) == State.CLOSED:
            box.release(old)  # opened again before its closing was looked at
        group.members[me] = (box, slot)
        group.me_of[box.uid] = me
        box.groups[body.gid] = group
        if box.state(slot) == State.CLOSED:
            group.closing.add(me)  # ``look`` goes on, when what it posted before is known
        else:
            group.closing.discard(me)
            group.closed.discard(me)
            group.dead.pop(me, None)
        return group

    def look(self, group: Group) -> None:
        """See whether a group's nodes are known by now and its local members here, and who has closed it."""
        if not group.placed:
            if group.private:
                group.place([self._index] * group.size)
            elif all(rank in self._nodes for rank in group.ranks):
                group.place([self._nodes[rank] for rank in group.ranks])
            else:
                return
        for me in group.local if not group.private else ():
            if group.ranks[me] in self.ended and me not in group.members:
                group.absent.add(me)
                group.dead.setdefault(me, "cannot take part: its process has ended")
        allow(group)
        self._on_placed(group)
        if group.present and not group.settled:
            group.settled = True
            self._collectives.found(group)
            self._pairs.found(group)
            self._on_settled(group)
        for me in list(group.closing):
            if me not in group.dead:
                self._part(group, me, "cannot take part: it has closed the group")
            self._try_close(group.key, group, me)

    def place(self, rank: int, node: int) -> None:
        """A job rank is on a node."""
        if self._nodes.get(rank) != node:
            self._nodes[rank] = node
            for group in list(self.groups.values()):
                self.look(group)

    def gone(self, box: Box, how: str) -> None:
        """A mailbox's owner has ended."""
        for key, group in list(self.groups.items()):
            for me, (owner, _) in list(group.members.items()):
                if owner is box:
                    self._leave(key, group, me, how)

    def died(self, group: Group, me: int, how: str) -> None:
        """A member will post nothing more."""
        group.dead[me] = how
        for op in list(group.ops.values()):
            self._collectives.check_dead(group, op)
        self._pairs.check_dead(group)

    def say_dead(self, group: Group, node: int) -> None:
        """Tell a node which members of this one have left."""
        for me, how in group.dead.items():
            if group.placed and group.node_of[me] == self._index:
                self._say_dead(group, node, me, how)

    def sweep(self) -> None:
        """Let go of the groups that were closed or left while chunks were under way."""
        for key, group in list(self.groups.items()):
            for me in list(group.closing) if group.placed else ():
                self._try_close(key, group, me)
            if not group.members and not group.owes():
                self.groups.pop(key, None)

    def _try_close(self, key: GroupKey, group: Group, me: int) -> None:
        """A member has closed the group: its definition goes when no chunk of it is under way."""
        box, slot = group.members[me]
        if any(me in op.arrived for op in group.ops.values()) or group.pairs_of(me):
            return
        group.closing.discard(me)
        group.closed.add(me)
        if box.state(slot) == State.CLOSED:
            box.release(slot)
        if len(group.closed) + len(group.absent) == len(group.local) and not group.ops:
            self.groups.pop(key, None)
            for owner, _ in group.members.values():
                owner.groups.pop(group.gid, None)

    def _leave(self, key: GroupKey, group: Group, me: int, how: str) -> None:
        box, _ = group.members.pop(me)
        closed = me in group.closed or me in group.closing
        group.closing.discard(me)
        group.me_of.pop(box.uid, None)
        if not closed:
            self._part(group, me, how)
        if not group.members and not group.owes():
            self.groups.pop(key, None)  # else ``sweep`` does

    def _part(self, group: Group, me: int, how: str) -> None:
        """A local member will post nothing more: here and on the other nodes, what waits for it fails."""
        self.died(group, me, how)
        for node in group.remote:
            self._say_dead(group, node, me, how)

    def _say_dead(self, group: Group, node: int, me: int, how: str) -> None:
        self._wires.flush()  # what the member has received is acknowledged before it is called gone
        data = how.encode()
        self._wires.send(node, Head(FrameType.DEAD, gid=group.gid, peer=me, length=len(data)), [data])
