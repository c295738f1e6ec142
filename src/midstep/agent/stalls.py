"""Collectives that some ranks posted and others did not, for longer than anybody should wait."""

from __future__ import annotations

from midstep.model.phase import Stall
from midstep.proxy.report import ProxyStatus


def stalls_of(status: ProxyStatus, bound_s: float) -> tuple[Stall, ...]:
    """What waits for ranks of this node, the longest first. What waits for ranks of others is theirs to
    report: they know which."""
    found = [
        Stall(f"{op.world} {op.group}".strip(), op.what, op.waiting_s, op.posted, op.missing)
        for op in status.pending
        if op.missing and op.waiting_s > bound_s
    ]
    return tuple(sorted(found, key=lambda s: (-s.waiting_s, s.group, s.operation)))
