"""A region chooses among its clusters."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.policy.levels.summary import Need, Summary


def choose_cluster(need: Need, summaries: Iterable[Summary]) -> Summary | None:
    """Where it could begin whole at once, on the smallest nodes that hold it and where the least is left;
    else where the least is asked for beside it. None: nowhere."""
    best: tuple[tuple[float, ...], str, str] | None = None
    chosen: Summary | None = None
    for summary in summaries:
        if not need.at(summary):
            continue
        key = (_order(need, summary), summary.cluster, summary.device_type)
        if best is None or key < best:
            best, chosen = key, summary
    return chosen


def _order(need: Need, summary: Summary) -> tuple[float, ...]:
    if need.devices > summary.size:
        return (2, -summary.size)
    small = need.devices <= summary.largest
    if need.guaranteed:  # it stays there, so large nodes are kept for what needs them
        return (0, not small, summary.largest if small else 0, summary.pressure)
    if need.devices <= summary.free and not summary.waiting:
        return (0, not small, summary.largest if small else 0, summary.pressure)
    return (1, summary.pressure)
