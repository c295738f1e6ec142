"""Snapshots of other regions that are brought into this one's archive while their jobs run there. Told by
levels; nothing is written down: who wants them asks again."""

from __future__ import annotations

from collections.abc import Callable

from midstep.control.errors import Rejected
from midstep.control.fleet import Fleet
from midstep.env import Clock
from midstep.model.phase import CopyStatus
from midstep.wire.agent import CopyOrder

_FORGOTTEN_S = 60.0


class Errands:
    """``changed`` is called with a node that shall do something else now."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self._asked_s: dict[str, float] = {}  # snapshot -> when it was asked for last
        self.changed: Callable[[str], None] = lambda node: None
        self._orders: dict[str, tuple[str, CopyOrder]] = {}  # snapshot -> node, what it shall bring
        self._status: dict[str, CopyStatus] = {}

    def want(self, order: CopyOrder) -> CopyStatus:
        """Have it brought; how far it is. Raises Rejected: no node is there to bring it."""
        name = order.source.snapshot_id
        self._asked_s[name] = self._clock.monotonic_s()
        there = sorted(self._fleet.connected)
        known = self._orders.get(name)
        if known is None or known[0] not in there:
            if not there:
                raise Rejected(503, "no_nodes", "no node of this region is connected")
            self._status.pop(name, None)
            self._orders[name] = (there[0], order)
            self.changed(there[0])
        return self._status.get(name) or CopyStatus(order.job_id, name, left_bytes=order.source.nbytes)

    def drop(self, snapshot_id: str) -> None:
        """It is not wanted any more; what has come stays in the archive."""
        self._status.pop(snapshot_id, None)
        self._asked_s.pop(snapshot_id, None)
        known = self._orders.pop(snapshot_id, None)
        if known is not None:
            self.changed(known[0])

    def of(self, node: str) -> tuple[CopyOrder, ...]:
        """What a node shall bring: what nobody has asked for in a while is not wanted any more."""
        return tuple(order for name, order in self._orders.values() if name == node)

    def heard(self, node: str, status: CopyStatus) -> None:
        """A node's word."""
        known = self._orders.get(status.snapshot_id)
        if self._clock.monotonic_s() - self._asked_s.get(status.snapshot_id, 0.0) > _FORGOTTEN_S:
            self.drop(status.snapshot_id)
        elif known is not None and known[0] == node:
            self._status[status.snapshot_id] = status
