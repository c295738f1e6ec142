"""Whole devices of a cluster, given consolidated: at most a node's devices come from one node, more are whole
free nodes and a remainder (the placement of Hu et al., SC'21).

The nodes with so many free devices are the bits of one integer: the lowest is the first of them, and a step
costs next to nothing whatever the number of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from midstep.sim.fleet import Fleet
from midstep.sim.policy import Grant
from midstep.sim.trace import MILLI, Job


class Shelf:
    """Nodes with one type of device. ``by_free[f]``: those with f free devices; ``whole``: of the largest
    size, with all free."""

    def __init__(self, sizes: dict[int, int]) -> None:
        self.sizes = sizes  # node -> its devices
        self.largest = max(sizes.values())
        self.total = self.free = sum(sizes.values())
        self.left = dict(sizes)
        self.by_free = [0] * (self.largest + 1)
        for node, size in sizes.items():
            self.by_free[size] |= 1 << node

    def copy(self) -> Shelf:
        """With the same nodes free."""
        other = object.__new__(Shelf)
        other.sizes, other.largest, other.total, other.free = self.sizes, self.largest, self.total, self.free
        other.left, other.by_free = self.left.copy(), self.by_free.copy()
        return other

    def find(self, need: int) -> list[tuple[int, int]] | None:
        """(node, devices) that would do, nothing taken."""
        if need > self.free:
            return None
        if need <= self.largest:
            for free in range(need, self.largest + 1):
                if self.by_free[free]:
                    return [(_lowest(self.by_free[free]), need)]
            return None
        count, rest = divmod(need, self.largest)
        whole = self.by_free[self.largest]
        if whole.bit_count() < count:
            return None
        found: list[tuple[int, int]] = []
        for _ in range(count):
            found.append((_lowest(whole), self.largest))
            whole &= whole - 1
        return found if not rest else self._with_rest(found, whole, rest)

    def _with_rest(self, found: list[tuple[int, int]], whole: int, rest: int) -> list[tuple[int, int]] | None:
        """The remainder comes from the node with the most free devices, as published."""
        if whole:
            return [*found, (_lowest(whole), rest)]
        for free in range(self.largest - 1, rest - 1, -1):
            if self.by_free[free]:
                return [*found, (_lowest(self.by_free[free]), rest)]
        return None

    def change(self, node: int, devices: int) -> None:
        """Of a node, so many become free (or are taken: negative)."""
        before = self.left[node]
        after = self.left[node] = before + devices
        bit = 1 << node
        self.by_free[before] &= ~bit
        self.by_free[after] |= bit
        self.free += devices

    def lose(self, node: int) -> None:
        """A node with all its devices free is gone."""
        size = self.sizes[node]
        assert self.left[node] == size, "a node is lost that has jobs"
        self.by_free[size] &= ~(1 << node)
        self.left[node] = 0
        self.free -= size
        self.total -= size

    def regain(self, node: int) -> None:
        """It is back."""
        self.total += self.sizes[node]
        self.by_free[0] &= ~(1 << node)
        self.change(node, self.sizes[node])


class Pool:
    """Consolidated placement in one cluster; a `Placer`."""

    def __init__(self, fleet: Fleet, nodes: Sequence[int]) -> None:
        sizes: dict[str, dict[int, int]] = {}
        for index in nodes:
            node = fleet.nodes[index]
            if node.devices:
                sizes.setdefault(node.device_type, {})[index] = node.devices
        # A bit's place is the node's place among those of its shelf, so that the integers stay short.
        self._names = {kind: list(found) for kind, found in sorted(sizes.items())}
        self._places = {node: place for names in self._names.values() for place, node in enumerate(names)}
        self._kinds = {node: kind for kind, names in self._names.items() for node in names}
        self._shelves = {
            kind: Shelf({place: sizes[kind][node] for place, node in enumerate(names)})
            for kind, names in self._names.items()
        }

    def copy(self) -> Pool:
        """For trying things out."""
        other = object.__new__(Pool)
        other._names, other._places, other._kinds = self._names, self._places, self._kinds
        other._shelves = {kind: shelf.copy() for kind, shelf in self._shelves.items()}
        return other

    @property
    def total(self) -> int:
        """Devices, free or not."""
        return sum(shelf.total for shelf in self._shelves.values())

    @property
    def free(self) -> int:
        """Devices that are free."""
        return sum(shelf.free for shelf in self._shelves.values())

    def place(self, job: Job) -> Grant | None:
        """Take devices of one type, the first by name that has them."""
        if job.devices == 0:
            return Grant((), ())
        for kind, shelf in self._shelves.items():
            if job.device_types and kind not in job.device_types:
                continue
            found = shelf.find(job.devices)
            if found is not None:
                for place, count in found:
                    shelf.change(place, -count)
                names = self._names[kind]
                return Grant(tuple(names[place] for place, _ in found), tuple(count for _, count in found))
        return None

    def fits(self, job: Job) -> bool:
        """See `Placer`."""
        return job.devices == 0 or any(
            shelf.find(job.devices) is not None
            for kind, shelf in self._shelves.items()
            if not job.device_types or kind in job.device_types
        )

    def take(self, job: Job, grant: Grant) -> Grant:
        """See `Placer`."""
        for node, count in zip(grant.nodes, grant.counts):
            self._shelves[self._kinds[node]].change(self._places[node], -count)
        return grant

    def lose(self, node: int) -> None:
        """See `Placer`."""
        if node in self._kinds:
            self._shelves[self._kinds[node]].lose(self._places[node])

    def regain(self, node: int) -> None:
        """See `Placer`."""
        if node in self._kinds:
            self._shelves[self._kinds[node]].regain(self._places[node])

    def give_back(self, job: Job, grant: Grant) -> None:
        """They are free again."""
        for node, count in zip(grant.nodes, grant.counts):
            self._shelves[self._kinds[node]].change(self._places[node], count)

    def possible(self, job: Job) -> str:
        """See `Placer`."""
        if job.devices and job.milli < MILLI:
            return f"asks for {job.size:g} of a device, and this placement gives whole ones only"
        kinds = [kind for kind in self._shelves if not job.device_types or kind in job.device_types]
        if not kinds and job.devices:
            asked, known = "|".join(job.device_types), ", ".join(self._shelves) or "none"
            return f"asks for devices of type {asked}; there are {known}"
        empty = [Shelf(self._shelves[kind].sizes) for kind in kinds]
        if job.devices == 0 or any(shelf.find(job.devices) for shelf in empty):
            return ""
        most = max(max(n for n in range(shelf.total + 1) if not n or shelf.find(n)) for shelf in empty)
        return f"asks for {job.devices} devices; at most {most} can be had"


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
