"""What would be free, and where, if these and these gave way."""

from __future__ import annotations

from collections.abc import Iterator

from midstep.policy.asks import MILLI
from midstep.policy.floor import Floor
from midstep.policy.homes import Homes
from midstep.policy.ledger import Job, device_of
from midstep.policy.pool import Spots


class Tally:
    """What would be free, as victims are added."""

    def __init__(self, floor: Floor, homes: Homes, own: dict[int, int]) -> None:
        self._floor, self._homes = floor, homes
        self._more = dict(own)
        self._in_use: dict[tuple[int, int], int] = {}  # of shared devices, in thousandths
        self._whole: dict[int, int] = {}  # unit -> how many of them would be free

    def add(self, victim: Job) -> None:
        """It would give way."""
        for place, count in victim.spots if victim.slot < 0 else self._shared(victim):
            if not self._floor.pool.closed[place]:
                before = self._more.get(place, 0)
                self._more[place] = before + count
                left = self._floor.pool.left[place] + before
                for unit in self._whole:
                    self._whole[unit] += (left + count) // unit - left // unit

    def enough(self, sharing: int, victim: Job) -> int | None:
        """A place where all of it would fit now, -1 for several, None for nowhere."""
        pool, need = self._floor.pool, self._homes.devices(sharing)
        if need <= pool.largest:
            for place, _ in victim.spots:
                if not pool.closed[place] and pool.left[place] + self._more.get(place, 0) >= need:
                    return place
        if self._homes.count == 1:
            return None
        return -1 if self._units(sharing) >= self._homes.units(sharing) else None

    def several(self, sharing: int) -> Spots | None:
        """On nodes that are free anyway, and on those of victims with the most free."""
        pool, unit = self._floor.pool, max(1, self._homes.unit(sharing))
        units, devices = self._homes.units(sharing), self._homes.devices(sharing)
        places = sorted(self._more, key=lambda place: (-pool.left[place], place))
        found: Spots = []
        for place, usable in [*self._free(unit), *((p, pool.left[p] + self._more[p]) for p in places)]:
            take = min(units, usable // unit)
            if take > 0:
                found.append((place, min(devices, take * unit)))
                units -= take
                devices -= found[-1][1]
            if units <= 0 or devices <= 0:
                return found
        return None

    def _shared(self, victim: Job) -> Spots:
        """The device that it shares, if all others with a part of it give way, too."""
        key = device_of(victim)
        in_use = self._in_use.get(key)
        if in_use is None:
            in_use = MILLI - self._floor.pool.part_left(*key)
        self._in_use[key] = in_use - victim.ask.milli
        return victim.spots if in_use == victim.ask.milli else []

    def _units(self, sharing: int) -> int:
        pool, unit = self._floor.pool, max(1, self._homes.unit(sharing))
        found = self._whole.get(unit)
        if found is None:
            found = pool.units_free(unit)
            for place, more in self._more.items():
                if not pool.closed[place]:
                    found += (pool.left[place] + more) // unit - pool.left[place] // unit
            self._whole[unit] = found
        return found

    def _free(self, unit: int) -> Iterator[tuple[int, int]]:
        pool = self._floor.pool
        for free in range(pool.largest, unit - 1, -1):
            bits = pool.by_free[free]
            while bits:
                low = bits & -bits
                bits ^= low
                if (place := low.bit_length() - 1) not in self._more:
                    yield place, free
