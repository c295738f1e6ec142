"""How a job's ranks map to devices, whatever the devices are.

A *unit* is what cannot be split over nodes: one device with the ranks that share it, or the several devices
of one rank. Ranks lie in contiguous, balanced blocks over the units of their node.
"""

from __future__ import annotations

from dataclasses import dataclass

from midstep.model.fleet import Node
from midstep.model.job import JobSpec, NodePlace, Placement, RankPlace

Homes = tuple[tuple[int, ...], ...]  # ranks by virtual host


@dataclass(frozen=True, slots=True)
class Shape:
    """How much a job wants: ``units`` of ``width`` devices each, for ``ranks`` ranks."""

    ranks: int
    units: int
    width: int

    @property
    def devices(self) -> int:
        """Devices of all units."""
        return self.units * self.width


@dataclass(frozen=True, slots=True)
class Share:
    """The virtual hosts that one node gets, and the devices for them."""

    node: Node
    homes: tuple[int, ...]
    devices: tuple[int, ...]


def shape_of(spec: JobSpec) -> Shape:
    """A device a unit; fewer ranks than devices: each rank is one, and takes several."""
    units = min(spec.devices, spec.world_size)
    return Shape(spec.world_size, units, max(1, spec.devices // spec.world_size))


def blocks(ranks: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Ranks in ``count`` contiguous blocks whose sizes differ by at most one: 8 in 3 are 3, 3 and 2."""
    found: list[list[int]] = [[] for _ in range(count)]
    for position, rank in enumerate(ranks):
        found[position * count // len(ranks)].append(rank)
    return [tuple(block) for block in found]


def homes_for(ranks: int, capacities: list[int]) -> Homes:
    """The virtual hosts of a job that starts on fewer devices than it has ranks: those that it would have
    with a device a rank, if its region were empty; so it can grow to that. ``capacities``: devices of the
    region's nodes. A region that is smaller shares out what it has."""
    order = sorted(capacities, reverse=True)
    if not order or order[0] >= ranks:
        return (tuple(range(ranks)),)
    units = min(ranks, sum(order))
    parts = blocks(tuple(range(ranks)), units)
    homes: list[tuple[int, ...]] = []
    for capacity in order:
        taken, parts = parts[:capacity], parts[capacity:]
        if taken:
            homes.append(tuple(rank for part in taken for rank in part))
    return tuple(homes)


def placement_of(shape: Shape, shares: list[Share], homes: Homes) -> Placement:
    """The placement that gives every node its share. Its nodes are in the order of their lowest ranks."""
    where = {
        rank: (home, local, len(ranks))
        for home, ranks in enumerate(homes)
        for local, rank in enumerate(ranks)
    }
    ordered = sorted(shares, key=lambda share: min(homes[home][0] for home in share.homes))
    places = [
        NodePlace(share.node.name, index, tuple(_rank_places(shape, share, homes, where)))
        for index, share in enumerate(ordered)
    ]
    return Placement(ordered[0].node.region, tuple(places))


def _rank_places(
    shape: Shape, share: Share, homes: Homes, where: dict[int, tuple[int, int, int]]
) -> list[RankPlace]:
    cores = {device.index: device.cpus for device in share.node.devices}
    ranks = tuple(sorted(rank for home in share.homes for rank in homes[home]))
    places: list[RankPlace] = []
    for position, block in enumerate(blocks(ranks, len(share.devices) // shape.width)):
        devices = share.devices[position * shape.width : (position + 1) * shape.width]
        cpus = tuple(dict.fromkeys(cpu for index in devices for cpu in cores[index]))
        places.extend(RankPlace(rank, *where[rank], devices=devices, cpus=cpus) for rank in block)
    return places
