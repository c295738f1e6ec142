"""A region chooses among its clusters."""

from __future__ import annotations

from collections.abc import Callable

from midstep.policy.levels.summary import Board, Need, Summary

AT_ONCE, NOT_YET, TOO_SMALL = range(3)


def choose_cluster(need: Need, board: Board, could: Callable[[Summary], bool]) -> Summary | None:
    """Where it could begin whole at once, on the smallest nodes that hold it and where the least is left;
    else where the least is asked for beside it. None: nowhere. ``could``: it would fit there, were all free.
    Looks no further than to where the pressure says that nothing better can come."""
    best: tuple[tuple[float, ...], str, str] | None = None
    chosen: Summary | None = None
    smallest = board.smallest(need.devices)
    for summary in board:
        if best is not None and _settled(best[0], need, summary.pressure, smallest):
            break
        if not need.at(summary) or not could(summary):
            continue
        key = (_order(need, summary), summary.cluster, summary.device_type)
        if best is None or key < best:
            best, chosen = key, summary
    return chosen


def _order(need: Need, summary: Summary) -> tuple[float, ...]:
    if need.devices > summary.size:
        return (TOO_SMALL, -summary.size)
    small = need.devices <= summary.largest
    # A guaranteed one stays there, so large nodes are kept for what needs them.
    if need.guaranteed or (need.devices <= summary.free and not summary.waiting):
        return (AT_ONCE, not small, summary.largest if small else 0, summary.pressure)
    return (NOT_YET, summary.pressure)


def _settled(best: tuple[float, ...], need: Need, pressure: float, smallest: int) -> bool:
    """No cluster with that pressure, or more, is better."""
    if best[0] == TOO_SMALL:
        return False
    if best[0] == AT_ONCE and best[1:3] == (not smallest, smallest):
        return True
    # Where all devices are in use or waited for, nobody begins at once.
    return not need.guaranteed and need.devices > 0 and pressure >= 1.0
