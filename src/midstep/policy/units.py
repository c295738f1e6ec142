"""How a job's ranks map to devices, whatever the devices are.

A *unit* is what cannot be split over nodes: one device with the ranks that share it, or the several devices
of one rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from midstep.model.fleet import Node
from midstep.model.job import JobSpec, NodePlace, Placement, RankPlace


@dataclass(frozen=True, slots=True)
class Shape:
    """A job as units: ``ranks[i]`` are the ranks of unit i, each unit takes ``width`` devices."""

    ranks: tuple[tuple[int, ...], ...]
    width: int

    @property
    def devices(self) -> int:
        """Devices of all units."""
        return len(self.ranks) * self.width


@dataclass(frozen=True, slots=True)
class Share:
    """The units that one node gets, as unit numbers in order, and the devices for them."""

    node: Node
    units: tuple[int, ...]
    devices: tuple[int, ...]


def shape_of(spec: JobSpec) -> Shape:
    """Ranks spread evenly over the devices, neighbours together; fewer ranks than devices: each takes
    several."""
    units = min(spec.devices, spec.world_size)
    members: list[list[int]] = [[] for _ in range(units)]
    for rank in range(spec.world_size):
        members[rank * units // spec.world_size].append(rank)
    return Shape(tuple(tuple(ranks) for ranks in members), max(1, spec.devices // spec.world_size))


def homes_as_units(shape: Shape, homes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The units of each virtual host."""
    home_of = {rank: home for home, ranks in enumerate(homes) for rank in ranks}
    units: list[list[int]] = [[] for _ in homes]
    for unit, ranks in enumerate(shape.ranks):
        units[home_of[ranks[0]]].append(unit)
    return tuple(tuple(numbers) for numbers in units)


def placement_of(shape: Shape, shares: list[Share], homes: tuple[tuple[int, ...], ...]) -> Placement:
    """The placement that gives every node its share; ``homes`` empty: every share becomes a virtual host."""
    ordered = sorted(shares, key=lambda share: share.units)
    homes = homes or tuple(
        tuple(rank for unit in share.units for rank in shape.ranks[unit]) for share in ordered
    )
    where = {
        rank: (home, local, len(ranks))
        for home, ranks in enumerate(homes)
        for local, rank in enumerate(ranks)
    }
    places = [
        NodePlace(share.node.name, index, tuple(_rank_places(shape, share, where)))
        for index, share in enumerate(ordered)
    ]
    return Placement(ordered[0].node.region, tuple(places))


def _rank_places(shape: Shape, share: Share, where: dict[int, tuple[int, int, int]]) -> list[RankPlace]:
    cores = {device.index: device.cpus for device in share.node.devices}
    places: list[RankPlace] = []
    for position, unit in enumerate(share.units):
        devices = share.devices[position * shape.width : (position + 1) * shape.width]
        cpus = tuple(cpu for index in devices for cpu in cores[index])
        places.extend(RankPlace(rank, *where[rank], devices=devices, cpus=cpus) for rank in shape.ranks[unit])
    return sorted(places, key=lambda place: place.rank)
