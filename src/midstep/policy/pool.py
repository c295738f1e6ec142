"""The devices of one type in one cluster: which are free, and where a job would fit.

The nodes with so many free devices are the bits of one integer (the lowest bit is the first of them), so
that a search costs about nothing, whatever the number of nodes. Best fit: the node that is left fullest;
several nodes of one rack, if one rack has them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from midstep.policy.asks import MILLI, NodeShape
from midstep.policy.homes import Homes

Spots = list[tuple[int, int]]  # (place of the node, devices)


class Pool:
    """``free``: devices that may be given, those of closed nodes not among them. ``version`` grows whenever
    something becomes free."""

    __slots__ = (
        "_fits", "_masks", "_parts", "_part_order", "_spot_bits",
        "by_free", "cluster", "closed", "device_type", "free", "largest", "left", "names", "places", "racks",
        "region", "size", "sizes", "spot_size", "version",
    )  # fmt: skip

    def __init__(self, region: str, cluster: str, device_type: str) -> None:
        self.region, self.cluster, self.device_type = region, cluster, device_type
        self.names: list[str] = []
        self.places: dict[str, int] = {}
        self.sizes: list[int] = []
        self.left: list[int] = []  # free devices, of closed nodes too
        self.closed: list[bool] = []
        self.racks: list[str] = []
        self.by_free: list[int] = [0]
        self.free = self.size = self.spot_size = self.largest = self.version = 0
        self._masks: dict[str, int] = {}
        self._fits: dict[tuple[Homes, int], bool] = {}
        self._spot_bits = 0
        self._parts: dict[tuple[int, int], int] = {}  # shared device -> milli that are free
        self._part_order: list[tuple[int, int, int]] = []  # the same: (free, place, slot)

    def join(self, shape: NodeShape) -> None:
        """A node, free and open; one that is known takes its place again."""
        place = self.places.get(shape.name)
        if place is None:
            place = self.places[shape.name] = len(self.names)
            self.names.append(shape.name)
            self.sizes.append(0)
            self.left.append(0)
            self.closed.append(True)
            self.racks.append("")
        self.racks[place] = shape.rack
        self._masks[shape.rack] = self._masks.get(shape.rack, 0) | 1 << place
        self.sizes[place] = self.left[place] = shape.devices
        self.size += shape.devices
        if shape.spot:
            self._spot_bits |= 1 << place
            self.spot_size += shape.devices
        self.largest = max(self.largest, shape.devices)
        self._fits.clear()
        while len(self.by_free) <= self.largest:
            self.by_free.append(0)
        self.open(place)

    def leave(self, place: int) -> None:
        """It is gone; nothing of it is in use."""
        self.close(place)
        self.size -= self.sizes[place]
        if self._spot_bits >> place & 1:
            self.spot_size -= self.sizes[place]
            self._spot_bits &= ~(1 << place)
        self._masks[self.racks[place]] &= ~(1 << place)
        self.sizes[place] = self.left[place] = 0
        self.largest = max(self.sizes)
        self._fits.clear()

    def is_spot(self, place: int) -> bool:
        """It may leave at short notice."""
        return bool(self._spot_bits >> place & 1)

    def close(self, place: int) -> None:
        """Nothing new there."""
        if not self.closed[place]:
            self.closed[place] = True
            self.by_free[self.left[place]] &= ~(1 << place)
            self.free -= self.left[place]

    def open(self, place: int) -> None:
        """As before."""
        if self.closed[place]:
            self.closed[place] = False
            self.by_free[self.left[place]] |= 1 << place
            self.free += self.left[place]
            self.version += 1

    def change(self, place: int, devices: int) -> None:
        """So many become free (or are taken: negative)."""
        before = self.left[place]
        after = self.left[place] = before + devices
        assert 0 <= after <= self.sizes[place], (self.names[place], before, devices)
        if self.closed[place]:
            return
        bit = 1 << place
        self.by_free[before] &= ~bit
        self.by_free[after] |= bit
        self.free += devices
        if devices > 0:
            self.version += 1

    def take(self, spots: Iterable[tuple[int, int]]) -> None:
        """They are free."""
        for place, count in spots:
            self.change(place, -count)

    def give_back(self, spots: Iterable[tuple[int, int]]) -> None:
        """They are free again."""
        for place, count in spots:
            self.change(place, count)

    def fits(self, homes: Homes, sharing: int) -> bool:
        """It would, if all were free."""
        key = (homes, sharing)
        known = self._fits.get(key)
        if known is None:
            known = self._fits[key] = self._would_fit(homes, sharing)
        return known

    def _would_fit(self, homes: Homes, sharing: int) -> bool:
        devices = homes.devices(sharing)
        if homes.count == 1 or devices <= self.largest:
            return devices <= self.largest
        unit = max(1, homes.unit(sharing))
        return sum(size // unit for size in self.sizes) >= homes.units(sharing)

    def find(self, homes: Homes, sharing: int, near: Sequence[tuple[int, int]] = ()) -> Spots | None:
        """Where it fits now, on the nodes ``near`` if it does; nothing is taken."""
        devices = homes.devices(sharing)
        if devices > self.free:
            return None
        if near and (found := self._near(homes, sharing, devices, near)):
            return found
        if devices <= self.largest:
            for free in range(devices, self.largest + 1):
                if bits := self.by_free[free]:
                    return [(_lowest(bits), devices)]
        return self._several(homes, sharing) if homes.count > 1 else None

    def _near(
        self, homes: Homes, sharing: int, devices: int, near: Sequence[tuple[int, int]]
    ) -> Spots | None:
        usable = [(place, self.left[place]) for place, _ in near if not self.closed[place]]
        if len(usable) == 1:
            return [(usable[0][0], devices)] if usable[0][1] >= devices else None
        if homes.count == 1:
            return None
        unit = min(homes.unit(sharing), homes.size)
        return _gather(usable, max(1, unit), homes.units(sharing), devices)

    def _several(self, homes: Homes, sharing: int) -> Spots | None:
        unit, units, devices = max(1, homes.unit(sharing)), homes.units(sharing), homes.devices(sharing)
        if unit > self.largest:
            return None
        best: tuple[int, int] | None = None  # (units there, mask): the rack that has just enough
        if len(self._masks) > 1:
            for mask in self._masks.values():
                there = self._count(unit, mask)
                if there >= units and (best is None or there < best[0]):
                    best = (there, mask)
        mask = best[1] if best else -1
        found: Spots = []
        for free in range(self.largest, unit - 1, -1):
            bits = self.by_free[free] & mask
            while bits:
                low = bits & -bits
                found.append((low.bit_length() - 1, free))
                bits ^= low
                units -= free // unit
                if units <= 0:
                    return _gather(found, unit, homes.units(sharing), devices)
        return None

    def _count(self, unit: int, mask: int) -> int:
        return sum(
            (self.by_free[free] & mask).bit_count() * (free // unit) for free in range(unit, self.largest + 1)
        )

    def units_free(self, unit: int) -> int:
        """How many groups of ``unit`` devices that are together are free."""
        return self._count(unit, -1)

    # Parts of devices.

    def find_part(self, milli: int) -> tuple[int, int] | None:
        """(place, slot) of the fullest shared device that has so much left; else of a new one."""
        at = bisect_left(self._part_order, (milli, -1, -1))
        while at < len(self._part_order):
            _, place, slot = self._part_order[at]
            if not self.closed[place]:
                return place, slot
            at += 1
        whole = self.find(Homes(1, 1, 1), 1)
        if whole is None:
            return None
        place = whole[0][0]
        return place, self.new_slot(place)

    def take_part(self, place: int, slot: int, milli: int) -> None:
        """It is free; a new one is taken whole from the node."""
        if (place, slot) not in self._parts:
            self.change(place, -1)
            self._parts[place, slot] = MILLI
            insort(self._part_order, (MILLI, place, slot))
        self._set_part(place, slot, self._parts[place, slot] - milli)

    def give_back_part(self, place: int, slot: int, milli: int) -> None:
        """Nobody on it any more: it is whole again."""
        self._set_part(place, slot, self._parts[place, slot] + milli)
        if self._parts[place, slot] == MILLI:
            del self._part_order[bisect_left(self._part_order, (MILLI, place, slot))]
            del self._parts[place, slot]
            self.change(place, 1)
        self.version += 1

    def has(self, place: int, devices: int, slot: int, milli: int) -> bool:
        """So many devices are free there; of a shared one, so much."""
        if slot >= 0 and (place, slot) in self._parts:
            return self._parts[place, slot] >= milli
        return self.left[place] >= devices

    @property
    def shared(self) -> int:
        """How many devices are shared."""
        return len(self._parts)

    def part_left(self, place: int, slot: int) -> int:
        """Milli that are free of a shared device."""
        return self._parts[place, slot]

    def parts(self) -> dict[tuple[int, int], int]:
        """Shared device -> milli that are free."""
        return dict(self._parts)

    def new_slot(self, place: int) -> int:
        """A number that no shared device of a node has."""
        slot = 0
        while (place, slot) in self._parts:
            slot += 1
        return slot

    def _set_part(self, place: int, slot: int, free: int) -> None:
        assert 0 <= free <= MILLI
        del self._part_order[bisect_left(self._part_order, (self._parts[place, slot], place, slot))]
        self._parts[place, slot] = free
        insort(self._part_order, (free, place, slot))


def _gather(usable: Iterable[tuple[int, int]], unit: int, units: int, devices: int) -> Spots | None:
    """So many devices in whole units from these nodes, from the first on."""
    found: Spots = []
    for place, free in usable:
        take = min(units, free // unit)
        if take:
            found.append((place, min(take * unit, devices)))
            units -= take
            devices -= found[-1][1]
        if units <= 0 or devices <= 0:
            return found
    return None


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
