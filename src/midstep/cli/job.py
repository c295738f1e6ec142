"""A job as `midstep run` and job files describe it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from midstep.model.job import JobKind
from midstep.model.tiers import Priority


def whole_or_part(devices: float) -> int | float:
    """A number of devices. ValueError: neither whole ones nor a part of one."""
    if devices >= 1 and devices.is_integer():
        return int(devices)
    if 0 < devices < 1:
        return devices
    raise ValueError(devices)


@dataclass(slots=True)
class JobFile:
    """A job as written. ``workdir`` None: no files."""

    command: list[str]
    workdir: Path | None = None
    name: str = ""
    devices: int | float | None = None
    ranks: int | None = None
    tier: str | None = None  # standard if that can be promised, else basic
    kind: str = JobKind.TRAIN
    device_type: str | None = None
    env: dict[str, str] = field(default_factory=dict[str, str])
    threads: int = 1
    region: str | None = None
    node: str | None = None
    retries: int = 0
    checkpoint_every: str | None = None  # auto, off, or seconds; None: as the fleet
    checkpoint_min: float | None = None
    checkpoint_max: float | None = None
    keep: int | None = None  # snapshots in the archive; None: as the fleet
    priority: str = Priority.MEDIUM
    project: str = ""
    min_devices: int | None = None
    elastic: bool = True
    spot_ok: bool = False
