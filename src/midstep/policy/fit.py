"""Where virtual hosts go, and how many devices each node gives.

In this order: the devices are shared as evenly as can be, as few ranks as possible change their node, as few
nodes as possible are used, and of those the ones that are left fullest; ties by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from midstep.model.fleet import Node
from midstep.policy.units import Homes, Shape, Share

# Branches tried for one job and one bound on sharing; a fleet of a few nodes is searched to the end.
_TRIES = 4000
_Cost = tuple[int, int, int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Room:
    """A node's free devices of one type, by index; those that the job has now first."""

    node: Node
    free: tuple[int, ...]

    def units(self, width: int) -> int:
        """How many units fit."""
        return len(self.free) // width


@dataclass(frozen=True, slots=True)
class Fit:
    """An answer. ``load``: ranks on the busiest device. ``moved``: ranks that change their node."""

    shares: list[Share]
    load: int
    moved: int


def spread(shape: Shape, rooms: list[Room]) -> tuple[Homes, Fit] | None:
    """A first placement with a device or more for each rank: in order of rank, over as few nodes as will do.
    Each node's ranks become a virtual host."""
    left = shape.units
    open_rooms = sorted(rooms, key=lambda room: (room.units(shape.width), room.node.name))
    homes: list[tuple[int, ...]] = []
    shares: list[Share] = []
    while left:
        roomy = [room for room in open_rooms if room.units(shape.width) >= left]
        if not open_rooms:
            return None
        largest = min(open_rooms, key=lambda room: (-room.units(shape.width), room.node.name))
        room = roomy[0] if roomy else largest
        take = min(left, room.units(shape.width))
        if take == 0:
            return None
        first = shape.units - left
        shares.append(Share(room.node, (len(homes),), room.free[: take * shape.width]))
        homes.append(tuple(range(first, first + take)))
        open_rooms.remove(room)
        left -= take
    return tuple(homes), Fit(shares, 1, 0)


def fit(
    shape: Shape, homes: Homes, rooms: list[Room], at: Mapping[int, str], still: bool = False
) -> Fit | None:
    """Nodes for all virtual hosts, or None. ``at``: where each is now; ``still``: there it has to stay."""
    least = -(-shape.ranks // shape.units)
    low, high = least, shape.ranks
    found = _Search(shape, homes, rooms, at, still, high).best()
    if found is None:
        return None
    while low < high:
        middle = (low + high) // 2
        better = _Search(shape, homes, rooms, at, still, middle).best()
        found, low, high = (better, low, middle) if better else (found, middle + 1, high)
    return found


@dataclass(slots=True)
class _Search:
    """Branch and bound over nodes for one virtual host after the other, the largest first, with at most
    ``load`` ranks on a device."""

    shape: Shape
    homes: Homes
    rooms: list[Room]
    at: Mapping[int, str]
    still: bool
    load: int
    tries: int = 0
    cost: _Cost | None = None
    found: dict[int, Room] = field(default_factory=dict[int, Room])
    capacity: dict[str, int] = field(init=False)  # node -> units

    def __post_init__(self) -> None:
        self.capacity = {room.node.name: room.units(self.shape.width) for room in self.rooms}

    def best(self) -> Fit | None:
        """The cheapest way that was found."""
        order = sorted(range(len(self.homes)), key=lambda home: (-len(self.homes[home]), home))
        self._go(order, 0, {}, {}, 0)
        return self._answer() if self.cost is not None else None

    def _go(
        self, order: list[int], depth: int, chosen: dict[int, Room], on: dict[str, int], moved: int
    ) -> None:
        self.tries += 1
        if self.tries > _TRIES and self.cost is not None:
            return
        if self.cost is not None and (moved, len(on)) > self.cost[:2]:
            return
        if depth == len(order):
            self._take(chosen, on, moved)
            return
        home = order[depth]
        size = len(self.homes[home])
        rest = sum(len(self.homes[other]) for other in order[depth + 1 :])
        for room in self._candidates(home, on, size + rest):
            name = room.node.name
            after = {**on, name: on.get(name, 0) + size}
            if self._possible(after, rest):
                away = size if self.at and self.at.get(home) != name else 0
                self._go(order, depth + 1, {**chosen, home: room}, after, moved + away)
            if self.tries > 2 * _TRIES:
                return

    def _candidates(self, home: int, on: dict[str, int], ranks_left: int) -> list[Room]:
        """Rooms for a virtual host, the most promising first; of empty ones that are alike only one."""
        here = self.at.get(home)
        if self.still:
            return [room for room in self.rooms if room.node.name == here]
        taken = {*on, *self.at.values()}
        wanted = -(-ranks_left * self.shape.units // self.shape.ranks)
        seen: set[int] = set()
        rooms: list[tuple[tuple[bool, bool, bool, int, str], Room]] = []
        for room in self.rooms:
            name = room.node.name
            units = self.capacity[name]
            if units == 0 or (name not in taken and units in seen):
                continue
            if name not in taken:
                seen.add(units)
            enough = units >= wanted
            key = (name != here, name not in on, not enough, units if enough else -units, name)
            rooms.append((key, room))
        return [room for _, room in sorted(rooms, key=lambda pair: pair[0])]

    def _possible(self, on: dict[str, int], rest: int) -> bool:
        """Whether the devices can still come out right."""
        least, most = self._bounds(on)
        fits = all(self._needed(ranks) <= self.capacity[name] for name, ranks in on.items())
        return fits and least <= self.shape.units <= most + rest

    def _bounds(self, on: dict[str, int]) -> tuple[int, int]:
        least = sum(self._needed(ranks) for ranks in on.values())
        return least, sum(min(self.capacity[name], ranks) for name, ranks in on.items())

    def _needed(self, ranks: int) -> int:
        return -(-ranks // self.load)

    def _take(self, chosen: dict[int, Room], on: dict[str, int], moved: int) -> None:
        spare = sum(self.capacity[name] for name in on) - self.shape.units
        cost = (moved, len(on), spare, tuple(sorted(on)))
        if self.cost is None or cost < self.cost:
            self.cost, self.found = cost, dict(chosen)

    def _answer(self) -> Fit:
        """The devices: as many as the bound asks for, the others where a device has most to do."""
        assert self.cost is not None
        homes: dict[str, list[int]] = {}
        for home, room in sorted(self.found.items()):
            homes.setdefault(room.node.name, []).append(home)
        ranks = {name: sum(len(self.homes[home]) for home in own) for name, own in homes.items()}
        units = {name: self._needed(count) for name, count in ranks.items()}
        for _ in range(self.shape.units - sum(units.values())):
            open_ = [name for name in units if units[name] < min(ranks[name], self.capacity[name])]
            name = max(open_, key=lambda name: (ranks[name] / units[name], -homes[name][0]))
            units[name] += 1
        by_name = {room.node.name: room for room in self.rooms}
        shares = [
            Share(by_name[name].node, tuple(own), _devices(by_name[name], units[name] * self.shape.width))
            for name, own in homes.items()
        ]
        return Fit(shares, max(-(-ranks[name] // units[name]) for name in homes), self.cost[0])


def _devices(room: Room, count: int) -> tuple[int, ...]:
    return tuple(sorted(room.free[:count]))
