"""What one level tells the one above it."""

from __future__ import annotations

from dataclasses import dataclass

from midstep.policy.asks import Ask


@dataclass(frozen=True, slots=True)
class Summary:
    """The devices of one type in one cluster (or, added up, in one region). ``largest``: devices of its
    largest node; ``room``: what guarantees could still stand on; ``waiting``: devices that jobs wait for."""

    region: str
    cluster: str
    device_type: str
    size: int
    free: int
    largest: int
    room: float
    waiting: float

    @property
    def pressure(self) -> float:
        """Devices asked for over devices."""
        return (self.size - self.free + self.waiting) / self.size if self.size else float("inf")


@dataclass(frozen=True, slots=True)
class Need:
    """What the upper levels look at of a job. ``guaranteed``: devices that its guarantee must stand on."""

    devices: int
    types: tuple[str, ...]
    region: str
    data: str
    snapshot_bytes: int
    guaranteed: float = 0.0

    @staticmethod
    def of(ask: Ask, guaranteed: float) -> Need:
        """Of what a job asks for."""
        return Need(ask.devices, ask.device_types, ask.region, ask.data, ask.snapshot_bytes, guaranteed)

    def at(self, summary: Summary) -> bool:
        """It may be there, and its guarantee could stand there."""
        return (
            summary.size > 0
            and (not self.types or summary.device_type in self.types)
            and (not self.region or summary.region == self.region)
            and summary.room >= self.guaranteed - 1e-9
        )
