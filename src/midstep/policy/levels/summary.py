"""What one level tells the one above it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from midstep.policy.asks import Ask


@dataclass(frozen=True, slots=True)
class Summary:
    """The devices of one type in one cluster (or, added up, in one region). ``largest``: devices of its
    largest node; ``room``: what guarantees could still stand on, ``room_spot``: also those that may stand on
    spot nodes; ``waiting``: devices that jobs wait for; ``pressure``: devices asked for over devices."""

    region: str
    cluster: str
    device_type: str
    size: int
    free: int
    largest: int
    room: float
    room_spot: float
    waiting: float
    pressure: float = field(init=False)

    def __post_init__(self) -> None:
        asked = self.size - self.free + self.waiting
        object.__setattr__(self, "pressure", asked / self.size if self.size else float("inf"))


@dataclass(frozen=True, slots=True)
class Need:
    """What the upper levels look at of a job. ``guaranteed``: devices that its guarantee must stand on."""

    devices: int
    types: tuple[str, ...]
    region: str
    data: str
    snapshot_bytes: int
    guaranteed: float = 0.0
    spot_ok: bool = False

    @staticmethod
    def of(ask: Ask, guaranteed: float) -> Need:
        """Of what a job asks for."""
        return Need(
            ask.devices, ask.device_types, ask.region, ask.data, ask.snapshot_bytes, guaranteed, ask.spot_ok
        )

    def at(self, summary: Summary) -> bool:
        """It may be there, and its guarantee could stand there."""
        return (
            summary.size > 0
            and (not self.types or summary.device_type in self.types)
            and (not self.region or summary.region == self.region)
            and (not self.guaranteed or self.room(summary) >= self.guaranteed - 1e-9)
        )

    def room(self, summary: Summary) -> float:
        """What its guarantee could stand on."""
        return summary.room_spot if self.spot_ok else summary.room


class Board:
    """What the clusters of a region have told last, the ones with the least pressure first."""

    def __init__(self) -> None:
        self._order: list[tuple[float, str, str]] = []
        self._told: dict[tuple[str, str], Summary] = {}  # cluster, type
        self._sizes: dict[int, int] = {}  # largest node -> of how many

    def put(self, summary: Summary) -> None:
        """It tells something new."""
        key = (summary.cluster, summary.device_type)
        before = self._told.get(key)
        if before is not None:
            del self._order[bisect_left(self._order, (before.pressure, *key))]
            self._sizes[before.largest] -= 1
        self._told[key] = summary
        self._sizes[summary.largest] = self._sizes.get(summary.largest, 0) + 1
        insort(self._order, (summary.pressure, *key))

    def __iter__(self) -> Iterator[Summary]:
        return (self._told[cluster, kind] for _, cluster, kind in self._order)

    def smallest(self, devices: int) -> int:
        """Devices of the smallest largest node that has so many; 0: none has."""
        return min((size for size, count in self._sizes.items() if count and size >= devices), default=0)
