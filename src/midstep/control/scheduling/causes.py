"""Why the service does what the policy's own reasons do not say: typed, and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placed:
    """It has the devices that it waited for."""

    devices: int | float
    nodes: tuple[str, ...]
    region: str

    def __str__(self) -> str:
        where = f" ({self.region})" if self.region else ""
        return f"{counted(self.devices)} on {', '.join(self.nodes)}{where}"


@dataclass(frozen=True, slots=True)
class Coming:
    """Others are freeing devices for it."""

    devices: int | float
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        where = ", ".join(self.nodes)
        return f"waits until {counted(self.devices)} on {where} are free: others leave them for it"


@dataclass(frozen=True, slots=True)
class Cordoned:
    """The only nodes where it may be take nothing new."""

    nodes: tuple[str, ...]

    def __str__(self) -> str:
        verb = "is" if len(self.nodes) == 1 else "are"
        return f"waits for {', '.join(self.nodes)}, which {verb} cordoned (`midstep uncordon`)"


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """It goes because its node is being emptied."""

    node: str
    to: str

    def __str__(self) -> str:
        return f"{self.node} is being drained: it goes to {self.to}"


@dataclass(frozen=True, slots=True)
class Offered:
    """Its region has no room for all of it beside the node; another one may have."""

    node: str

    def __str__(self) -> str:
        return f"{self.node} is being drained: it is offered to other regions"


@dataclass(frozen=True, slots=True)
class DrainOverdue:
    """Nothing could be found for it until the deadline."""

    node: str

    def __str__(self) -> str:
        return f"{self.node} is being drained and the deadline is over: it is suspended and waits for devices"


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """It was tried, and is tried again later."""

    kind: str
    message: str
    again_s: float

    def __str__(self) -> str:
        return f"the last {self.kind} failed: {self.message}; again in {self.again_s:.0f} s"


@dataclass(frozen=True, slots=True)
class CannotLeave:
    """Its processes cannot be saved there."""

    node: str

    def __str__(self) -> str:
        return f"{self.node} has no CRIU: what runs there cannot be moved (see `midstep doctor`)"


@dataclass(frozen=True, slots=True)
class TiedToNode:
    """It was submitted for that node."""

    node: str

    def __str__(self) -> str:
        return f"it was submitted for node {self.node} (`midstep migrate` it, or cancel it)"


def counted(devices: int | float) -> str:
    """A number of devices in words."""
    if 0 < devices < 1:
        return f"{devices:g} of a device"
    return "1 device" if devices == 1 else f"{devices} devices"
