"""A cluster chooses nodes (`midstep.policy.cluster`), and tells what it has."""

from __future__ import annotations

from midstep.policy.cluster import Cluster
from midstep.policy.floor import Floor
from midstep.policy.levels.summary import Summary


def summarise(cluster: Cluster, keep: float) -> list[Summary]:
    """One for each type of device; costs nothing, all of it is kept up to date. ``keep``: share that no
    guarantee may stand on."""
    waiting = cluster.waiting.devices + cluster.owed_devices
    return [
        Summary(
            cluster.region, cluster.name, kind, floor.pool.size, floor.pool.free, floor.pool.largest,
            room(floor, keep, False), room(floor, keep, True), waiting,
        )
        for kind, floor in cluster.floors.items()
    ]  # fmt: skip


def room(floor: Floor, keep: float, spot_ok: bool) -> float:
    """Devices that guarantees could still stand on."""
    firm = floor.pool.size - floor.pool.spot_size
    left = floor.pool.size * (1.0 - keep) - floor.promised
    if spot_ok:
        return left
    return min(left, firm * (1.0 - keep) - (floor.promised - floor.promised_spot))
