"""Where units go: the fewest nodes, and of those the ones that are left fullest."""

from __future__ import annotations

from dataclasses import dataclass

from midstep.model.fleet import Node
from midstep.policy.units import Shape, Share, homes_as_units


@dataclass(frozen=True, slots=True)
class Room:
    """A node's free devices of one type, by index."""

    node: Node
    free: tuple[int, ...]

    def units(self, width: int) -> int:
        """How many units fit."""
        return len(self.free) // width


def fit(shape: Shape, homes: tuple[tuple[int, ...], ...], rooms: list[Room]) -> list[Share] | None:
    """Shares for all units, or None. Ranks that share a virtual host's files stay together on a node."""
    if not homes:
        return _spread(shape, rooms)
    groups = homes_as_units(shape, homes)
    for count in range(1, len(groups) + 1):
        if shares := _pack(shape, groups, rooms, count):
            return shares
    return None


def _spread(shape: Shape, rooms: list[Room]) -> list[Share] | None:
    """A first placement: units in order of rank, over as few nodes as will do."""
    left = list(range(len(shape.ranks)))
    open_rooms = sorted(rooms, key=lambda room: (room.units(shape.width), room.node.name))
    chosen: list[tuple[Room, int]] = []
    while left:
        roomy = [room for room in open_rooms if room.units(shape.width) >= len(left)]
        if not roomy and not open_rooms:
            return None
        room = (
            roomy[0]
            if roomy
            else min(open_rooms, key=lambda room: (-room.units(shape.width), room.node.name))
        )
        if room.units(shape.width) == 0:
            return None
        take = min(len(left), room.units(shape.width))
        chosen.append((room, take))
        open_rooms.remove(room)
        left = left[take:]
    shares: list[Share] = []
    unit = 0
    for room, take in chosen:
        shares.append(_share(shape, room, tuple(range(unit, unit + take))))
        unit += take
    return shares


def _pack(
    shape: Shape, groups: tuple[tuple[int, ...], ...], rooms: list[Room], count: int
) -> list[Share] | None:
    """Whole groups into ``count`` nodes, the largest group first into the node that it fills most."""
    capacity = {room.node.name: room.units(shape.width) for room in rooms}
    by_name = {room.node.name: room for room in rooms}
    # The roomiest nodes when several groups must share, else the tightest ones that hold the largest groups.
    roomiest = sorted(capacity, key=lambda name: (-capacity[name], name))
    chosen = roomiest[:count] if count < len(groups) else roomiest
    if count == 1:
        enough = [name for name in reversed(roomiest) if capacity[name] >= len(shape.ranks)]
        chosen = enough[:1]
    taken: dict[str, list[int]] = {}
    for group in sorted(groups, key=lambda group: (-len(group), group)):
        fitting = [name for name in chosen if capacity[name] >= len(group)]
        if not fitting:
            return None
        name = min(fitting, key=lambda name: (name in taken and count == len(groups), capacity[name], name))
        capacity[name] -= len(group)
        taken.setdefault(name, []).extend(group)
    return [_share(shape, by_name[name], tuple(sorted(units))) for name, units in sorted(taken.items())]


def _share(shape: Shape, room: Room, units: tuple[int, ...]) -> Share:
    return Share(room.node, units, room.free[: len(units) * shape.width])
