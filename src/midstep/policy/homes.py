"""How a job's ranks lie in virtual hosts, and what fewer devices mean for it.

A *home* is never parted (its ranks share files): on a node it has one device for every ``sharing`` of its
ranks. Ranks of one step wait for each other, so a job is as slow as its busiest device: with k ranks a device
it makes 1/k of the progress, a little less for the sharing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Homes:
    """``count`` homes of ``size`` ranks, but for the last one, which has ``last``."""

    count: int
    size: int
    last: int

    @property
    def ranks(self) -> int:
        """In all."""
        return (self.count - 1) * self.size + self.last

    def unit(self, sharing: int) -> int:
        """Devices that must be together, with so many ranks a device."""
        return -(-self.size // sharing)

    def units(self, sharing: int) -> int:
        """Groups of devices that must be together, with so many ranks a device."""
        return self.count if sharing < self.size else self.devices(sharing)

    def devices(self, sharing: int) -> int:
        """In all, with so many ranks a device."""
        if sharing >= self.size:
            return -(-self.ranks // sharing)
        return (self.count - 1) * -(-self.size // sharing) + -(-self.last // sharing)


@lru_cache(maxsize=4096)
def homes_of(ranks: int, node_devices: int) -> Homes:
    """Of a first placement with a device a rank, on nodes of that size."""
    if ranks == 0:
        return Homes(1, 0, 0)
    size = min(ranks, node_devices)
    count = -(-ranks // size)
    return Homes(count, size, ranks - (count - 1) * size)


@lru_cache(maxsize=4096)
def sharings(homes: Homes, least: int) -> tuple[int, ...]:
    """Ranks a device that are worth having, the fewest first: each of them saves devices, wastes few, and
    leaves at least ``least``."""
    found: list[int] = []
    sharing, devices = 1, 1 << 60
    while True:
        now = homes.devices(sharing)
        if found and now < least:
            break
        if now < devices:
            found.append(sharing)
            devices = now
        if sharing >= homes.ranks:
            break
        sharing = min(2 * sharing, max(1, homes.ranks))
    return tuple(found)
