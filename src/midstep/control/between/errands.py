"""Snapshots of other regions that are brought into this one's archive while their jobs run there. Told by
levels; nothing is written down: who wants them asks again, and what nobody asks for any more is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midstep.control.errors import Rejected
from midstep.control.fleet import Fleet
from midstep.env import Clock
from midstep.model.phase import CopyStatus
from midstep.wire.agent import CopyOrder

_FORGOTTEN_S = 60.0


@dataclass(slots=True)
class _Errand:
    """What a node shall bring; ``asked_s``: when it was asked for last."""

    node: str
    order: CopyOrder
    status: CopyStatus
    asked_s: float


class Errands:
    """``changed`` is called with a node that shall do something else now."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet, self._clock = fleet, clock
        self.changed: Callable[[str], None] = lambda node: None
        self._all: dict[str, _Errand] = {}  # by snapshot

    def want(self, order: CopyOrder) -> CopyStatus:
        """Have it brought; how far it is. Raises Rejected: no node is there to bring it."""
        source, now_s = order.source, self._clock.monotonic_s()
        there = sorted(self._fleet.connected)
        errand = self._all.get(source.snapshot_id)
        if errand is None or errand.node not in there:
            if not there:
                raise Rejected(503, "no_nodes", "no node of this region is connected")
            begun = CopyStatus(order.job_id, source.snapshot_id, left_bytes=source.nbytes)
            errand = self._all[source.snapshot_id] = _Errand(there[0], order, begun, now_s)
            self.changed(errand.node)
        errand.asked_s = now_s
        return errand.status

    def drop(self, snapshot_id: str) -> None:
        """It is not wanted any more; what has come stays in the archive."""
        errand = self._all.pop(snapshot_id, None)
        if errand is not None:
            self.changed(errand.node)

    def of(self, node: str) -> tuple[CopyOrder, ...]:
        """What a node shall bring."""
        return tuple(errand.order for errand in self._all.values() if errand.node == node)

    def heard(self, node: str, status: CopyStatus) -> None:
        """A node's word."""
        errand = self._all.get(status.snapshot_id)
        if errand is None or errand.node != node:
            return
        errand.status = status
        if self._clock.monotonic_s() - errand.asked_s > _FORGOTTEN_S:
            self.drop(status.snapshot_id)
