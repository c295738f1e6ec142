"""Why a job was not given devices: typed, and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NoCapacity:
    """There are such devices, but not enough of them are free together now. ``largest``: free on one node."""

    asked: int
    free: int
    largest: int
    where: str = ""

    def __str__(self) -> str:
        where = f" at {self.where}" if self.where else ""
        return (
            f"waits for {_devices(self.asked)}{where}: {self.free} free, at most {self.largest} on one node"
        )


@dataclass(frozen=True, slots=True)
class NoPart:
    """No device has so much left for a job that takes a part of one. In thousandths; ``largest``: of one."""

    asked: int
    largest: int
    where: str = ""

    def __str__(self) -> str:
        where = f" at {self.where}" if self.where else ""
        return f"waits for {self.asked / 1000:g} of a device{where}: at most {self.largest / 1000:g} is free"


@dataclass(frozen=True, slots=True)
class NoRoomForHome:
    """Ranks that share files must stay together on a node, and no node has room for them now."""

    asked: int
    largest: int

    def __str__(self) -> str:
        where = "on one node, for ranks that share files"
        return f"waits for {_devices(self.asked)} {where}: at most {self.largest} are free"


@dataclass(frozen=True, slots=True)
class TooLarge:
    """No region has so many devices of one type, even if nothing ran."""

    asked: int
    total: int
    where: str = ""

    def __str__(self) -> str:
        where = f" at {self.where}" if self.where else " of one type in one region"
        return f"asks for {_devices(self.asked)}; there are {self.total}{where}"


@dataclass(frozen=True, slots=True)
class NoSuchDeviceType:
    """No node has devices of that type."""

    asked: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"asks for devices of type {self.asked!r}; there are {', '.join(self.known) or 'none'}"


@dataclass(frozen=True, slots=True)
class NoSuchPlace:
    """No node or region has that name."""

    asked: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"asks for {self.asked!r}; there are {', '.join(self.known) or 'none'}"


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The only node where it may be is not connected."""

    node: str

    def __str__(self) -> str:
        return f"waits for node {self.node}, which is not connected"


@dataclass(frozen=True, slots=True)
class NoNodes:
    """No node where it may be is connected."""

    where: str = ""

    def __str__(self) -> str:
        return f"waits for a node {f'of {self.where} ' if self.where else ''}to connect"


@dataclass(frozen=True, slots=True)
class CannotRestore:
    """The nodes where it may be have no CRIU, so they cannot restore a snapshot."""

    nodes: tuple[str, ...]

    def __str__(self) -> str:
        nodes = ", ".join(self.nodes)
        return f"has a snapshot, which {nodes} cannot restore: no CRIU there (see `midstep doctor`)"


@dataclass(frozen=True, slots=True)
class CannotMove:
    """Its ranks cannot change their nodes, and there it cannot have so many devices (or so few)."""

    asked: int
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        where = f"cannot have {_devices(self.asked)} where its ranks are ({', '.join(self.nodes)})"
        return f"{where}: without CRIU they cannot change their nodes (see `midstep doctor`)"


Reason = (
    NoCapacity
    | NoPart
    | NoRoomForHome
    | TooLarge
    | NoSuchDeviceType
    | NoSuchPlace
    | NodeDown
    | NoNodes
    | CannotRestore
    | CannotMove
)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
