"""Orders of the engine as assignments of the wire: addresses and log positions are added."""

from __future__ import annotations

from collections.abc import Mapping

from midstep.engine.orders import Order
from midstep.model.fleet import Node
from midstep.wire.agent import Assignment, PeerAddress


def assignment(order: Order, nodes: Mapping[str, Node], log_bytes: dict[int, int]) -> Assignment:
    """What is sent to the agent. ``log_bytes``: rank -> bytes of its log that are here."""
    return Assignment(
        job_id=order.job_id,
        epoch=order.epoch,
        goal=order.goal,
        spec=order.spec,
        place=order.place,
        peers=tuple(PeerAddress(p.index, nodes[p.node].address, p.port, p.ranks) for p in order.peers),
        source=order.source,
        adopt=order.adopt,
        target=order.target,
        keep=order.keep,
        store=order.store,
        collect=order.collect,
        leaving=order.leaving,
        log_bytes=log_bytes,
    )
