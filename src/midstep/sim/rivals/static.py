"""Static partitions: every group has its own nodes, and a strict queue (FIFO) for them. What one leaves
free no other gets: the common way to keep promises to teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from midstep.sim.errors import FleetError
from midstep.sim.fleet import Fleet, demand
from midstep.sim.trace import Job


def partition(fleet: Fleet, nodes: Sequence[int], jobs: Sequence[Job]) -> dict[str, tuple[int, ...]]:
    """Group -> its nodes: as FLEET.yaml says (`groups`), else by what its jobs ask for over the trace, and at
    least enough for its largest job. FleetError: there are not so many nodes."""
    cluster = fleet.nodes[nodes[0]].cluster
    largest = dict.fromkeys(fleet.groups.get(cluster, {}), 0)
    for job in jobs:
        largest[job.group] = max(largest.get(job.group, 0), job.devices)
    # The largest nodes, to those with the largest jobs first.
    free = sorted(nodes, key=lambda index: (fleet.nodes[index].devices, -index))
    order = sorted(largest, key=lambda group: (-largest[group], group))
    if cluster in fleet.groups:
        return _as_said(cluster, fleet.groups[cluster], order, free)
    return _by_need(fleet, demand(jobs), largest, order, free)


def _as_said(
    cluster: str, counts: Mapping[str, int], order: Sequence[str], free: list[int]
) -> dict[str, tuple[int, ...]]:
    if sum(counts.values()) > len(free):
        raise FleetError(
            f"cluster {cluster}: its groups have {sum(counts.values())} nodes; there are {len(free)}"
        )
    return {group: tuple(sorted(free.pop() for _ in range(counts.get(group, 0)))) for group in order}


def _by_need(
    fleet: Fleet,
    needs: Mapping[str, float],
    largest: Mapping[str, int],
    order: Sequence[str],
    free: list[int],
) -> dict[str, tuple[int, ...]]:
    """Of each size of nodes everybody has the same share, but for what the largest jobs need."""
    total = sum(needs.values()) or 1.0
    found: dict[str, list[int]] = {group: [] for group in order}
    for group in order:
        missing = max(1, largest[group])
        while missing > 0 and free:
            found[group].append(free.pop())
            missing -= fleet.nodes[found[group][-1]].devices
    sizes = [
        fleet.nodes[index].devices for index in (*free, *(node for own in found.values() for node in own))
    ]
    while free:
        size = fleet.nodes[free[-1]].devices
        due = {group: sizes.count(size) * needs.get(group, 0.0) / total for group in order}
        for group in order:
            due[group] -= sum(fleet.nodes[node].devices == size for node in found[group])
        while free and fleet.nodes[free[-1]].devices == size:
            group = max(order, key=lambda name: (due[name], name))
            found[group].append(free.pop())
            due[group] -= 1
    return {group: tuple(sorted(nodes)) for group, nodes in found.items()}
