"""What is free on the nodes of a cluster: processors, memory, each device in part. The arrays have a row a
node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.sim.fleet import Fleet
from midstep.sim.trace import MILLI, Job

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job takes of a node: jobs that ask for the same are one class."""

    cpu_milli: int
    mem_mib: int
    devices: int
    milli: int  # of each device; 0 if it asks for none
    types: tuple[str, ...]

    @property
    def partial(self) -> bool:
        """Part of one device."""
        return self.devices == 1 and self.milli < MILLI


def ask_of(job: Job) -> Ask:
    """Of a job that fits on one node."""
    milli = job.milli if job.devices else 0
    return Ask(round(job.cpus * 1000), round(job.mem_gib * 1024), job.devices, milli, job.device_types)


class Rooms:
    """What is free on each node. A device that is not there is -1 (as wide as the widest node)."""

    def __init__(self, fleet: Fleet, nodes: Sequence[int]) -> None:
        chosen = [fleet.nodes[index] for index in nodes]
        widest = max((node.devices for node in chosen), default=0)
        self.nodes = tuple(nodes)
        self.place_of = {index: place for place, index in enumerate(self.nodes)}
        self.kinds = tuple(sorted({node.device_type for node in chosen if node.devices}))
        self.kind = np.array(
            [self.kinds.index(node.device_type) if node.devices else -1 for node in chosen], dtype=np.int64
        )
        # 0 says that a node's are not counted: as many as anybody may ask for.
        self.cpu = np.array([round(node.cpus * 1000) or 1 << 40 for node in chosen], dtype=np.int64)
        self.mem = np.array([round(node.mem_gib * 1024) or 1 << 40 for node in chosen], dtype=np.int64)
        self.devices = np.full((len(chosen), max(1, widest)), -1, dtype=np.int64)
        for place, node in enumerate(chosen):
            self.devices[place, : node.devices] = MILLI
        self.left = np.maximum(self.devices, 0).sum(axis=1)  # milli-devices free, by node
        self.total = int(self.left.sum()) // MILLI
        self._kind_masks: dict[tuple[str, ...], Bools] = {}

    def copy(self) -> Rooms:
        """With the same free."""
        other = object.__new__(Rooms)
        other.__dict__.update(self.__dict__)
        other.cpu, other.mem = self.cpu.copy(), self.mem.copy()
        other.devices, other.left = self.devices.copy(), self.left.copy()
        return other

    def fits(self, ask: Ask) -> Bools:
        """The nodes that it fits on."""
        ok: Bools = (self.cpu >= ask.cpu_milli) & (self.mem >= ask.mem_mib)
        if ask.devices:
            ok &= (self.devices >= ask.milli).sum(axis=1) >= ask.devices
            if ask.types:
                ok &= self.mask(ask.types)
        return ok

    def mask(self, types: tuple[str, ...]) -> Bools:
        """The nodes with devices of one of these types."""
        if types not in self._kind_masks:
            wanted = [index for index, kind in enumerate(self.kinds) if kind in types]
            self._kind_masks[types] = np.isin(self.kind, wanted)
        return self._kind_masks[types]

    def take(self, place: int, ask: Ask, which: tuple[int, ...]) -> None:
        """Of a node, those devices of it."""
        self._change(place, ask, which, -1)

    def give(self, place: int, ask: Ask, which: tuple[int, ...]) -> None:
        """Back."""
        self._change(place, ask, which, 1)

    def close(self, place: int) -> None:
        """A node gives nothing any more; all of it is free."""
        there = self.devices[place] >= 0
        self.total -= int(there.sum())
        self.devices[place][there] = 0
        self.left[place] = 0
        self.cpu[place] = -1  # fewer than anybody asks for: nobody fits

    def reopen(self, place: int, empty: Rooms) -> None:
        """As it is in ``empty``."""
        self.total += int((empty.devices[place] >= 0).sum())
        for mine, full in (
            (self.cpu, empty.cpu),
            (self.mem, empty.mem),
            (self.devices, empty.devices),
            (self.left, empty.left),
        ):
            mine[place] = full[place]

    def _change(self, place: int, ask: Ask, which: tuple[int, ...], sign: int) -> None:
        self.cpu[place] += sign * ask.cpu_milli
        self.mem[place] += sign * ask.mem_mib
        for index in which:
            self.devices[place, index] += sign * ask.milli
        self.left[place] += sign * ask.milli * len(which)
