"""Where work runs: fleet > region > cluster > node > device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """One schedulable unit of a node: a group of CPU cores, or a GPU."""

    index: int
    device_type: str  # "cpu-1c", "nvidia-h100-80gb-hbm3", ...
    cpus: tuple[int, ...] = ()

    @property
    def holds_state(self) -> bool:
        """Whether ranks have memory on it, which only a cut can move (a GPU)."""
        return self.device_type.startswith("nvidia-")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its agent describes it. ``address`` is what the proxies of other nodes dial."""

    name: str
    region: str
    address: str
    devices: tuple[Device, ...]
    cluster: str = "main"
    freezes_in_place: bool = False  # no CRIU here: suspend keeps the processes, nothing can move
    spot: bool = False  # it may be taken away at short notice


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as the controller sees it now."""

    node: Node
    connected: bool
    last_seen_s: float  # wall clock
