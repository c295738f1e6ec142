"""The fleet chooses among regions: waiting somewhere is weighed against carrying data and snapshots there."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.policy.levels.summary import Need, Summary

# A region that is asked for so many times over is taken to keep a job waiting for so long, a time.
WAIT_S = 3600.0


def choose_region(
    need: Need, regions: Iterable[tuple[str, Summary]], far_bytes_per_s: float
) -> Summary | None:
    """Of the clusters that the regions have chosen, where it is expected to begin first, with what has to be
    carried there counted; of equals the one with its data, then the one with the least asked for. None:
    nowhere."""
    best: tuple[tuple[float, bool, float, str], Summary] | None = None
    for name, chosen in regions:
        away = bool(need.data) and name != need.data
        carried_s = need.snapshot_bytes / far_bytes_per_s if away else 0.0
        waits_s = 0.0
        if need.devices > chosen.free or chosen.waiting:
            waits_s = max(0.0, chosen.pressure + need.devices / chosen.size - 1.0) * WAIT_S
        if need.devices > chosen.size:
            waits_s += WAIT_S * need.devices / chosen.size
        key = (carried_s + waits_s, away, chosen.pressure, name)
        if best is None or key < best[0]:
            best = (key, chosen)
    return best[1] if best else None
