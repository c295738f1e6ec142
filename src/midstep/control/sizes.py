"""How many devices a job may ask for: whole ones, or a part of one."""

from __future__ import annotations

import math

from midstep.control.errors import Rejected, invalid
from midstep.control.fleet import Fleet
from midstep.model.job import MILLI

LEAST_MILLI = 10  # of a device: what is less is all overhead
_HINT = "give whole devices, or a part of one as a fraction: 0.5"


def sized(devices: float | None) -> tuple[int | None, int]:
    """Whole devices, and how much of each, in thousandths. Raises Rejected."""
    if devices is None:
        return None, MILLI
    if not math.isfinite(devices) or devices <= 0:
        raise invalid("devices", f"{devices:g} is not above 0", _HINT)
    if devices == int(devices):
        return int(devices), MILLI
    if devices > 1:
        raise invalid("devices", f"{devices:g} is neither whole nor below 1", _HINT)
    milli = round(devices * MILLI)
    if milli < LEAST_MILLI:
        raise invalid("devices", f"{devices:g} is less than {LEAST_MILLI / MILLI:g} of a device", _HINT)
    return 1, milli


def check_part(milli: int, ranks: int) -> None:
    """Raises Rejected: a job of several ranks asks for a part of a device."""
    if milli < MILLI and ranks != 1:
        detail = f"{ranks} ranks cannot have {milli / MILLI:g} of a device: that is for a job of one rank"
        raise invalid("devices", detail, "with --devices 1 they share a whole one")


def type_of(milli: int, asked: str | None, fleet: Fleet) -> str | None:
    """The device type of a job: with a part of a device it is always a certain one, and none with a memory of
    its own, because nothing could bound what each job takes of that. Raises Rejected."""
    if milli == MILLI:
        return asked
    devices = [device for status in fleet.nodes.values() for device in status.node.devices]
    able = sorted({device.device_type for device in devices if not device.holds_state})
    if asked is None and len(able) > 1:
        detail = f"a part of a device is of one type; there are {', '.join(able)}"
        raise invalid("device_type", detail, f"give --device-type, for example {able[0]}")
    named = [device for device in devices if asked in (None, device.device_type)]
    if named and all(device.holds_state for device in named):
        kinds = ", ".join(sorted({device.device_type for device in named}))
        detail = f"the memory of {kinds} cannot be promised to jobs that share one"
        raise Rejected(422, "no_parts", "parts of GPUs are not given", detail, "give whole devices")
    return asked or (able[0] if able else None)
