"""FGD: fragmentation gradient descent (Weng et al., USENIX ATC'23).

How fragmented a node is: for each typical job, weighed by how common it is, the free part of the node's
devices that it could not use. A job goes where it makes that grow least, or shrink most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.sim.rooms import Ask, Ints, Rooms, ask_of
from midstep.sim.trace import MILLI, Job

Floats = NDArray[np.float64]
POPULAR = 0.95  # of all jobs, the most common classes that make up so many are typical
_NONE = -1


@dataclass(frozen=True, slots=True)
class Typical:
    """Classes of jobs, and how common each is among them (their sum is 1)."""

    asks: tuple[Ask, ...]
    weights: Floats


def typical(jobs: Iterable[Job]) -> Typical:
    """Of a workload."""
    counts = Counter(Ask(a.cpu_milli, 0, a.devices, a.milli, a.types) for a in map(ask_of, jobs))
    order = sorted(
        counts.items(), key=lambda item: (-item[1], *(-x for x in _numbers(item[0])), item[0].types)
    )
    chosen: list[tuple[Ask, int]] = []
    covered, total = 0, sum(counts.values())
    for ask, count in order:
        if covered >= POPULAR * total:
            break
        chosen.append((ask, count))
        covered += count
    weights = np.array([count for _, count in chosen], dtype=np.float64)
    return Typical(tuple(ask for ask, _ in chosen), weights / weights.sum())


def _numbers(ask: Ask) -> tuple[int, int, int]:
    return ask.cpu_milli, ask.milli, ask.devices


class Fragments:
    """The score; see the module. What it found out about a node is kept until something changes there."""

    def __init__(self, rooms: Rooms, workload: Typical) -> None:
        self._weights = workload.weights
        self._cpu = np.array([ask.cpu_milli for ask in workload.asks], dtype=np.int64)
        self._count = np.array([ask.devices for ask in workload.asks], dtype=np.int64)
        milli = np.array([ask.milli for ask in workload.asks], dtype=np.int64)
        self._amounts, self._amount_of = np.unique(milli, return_inverse=True)
        # Which of the typical jobs may go to which kind of node; a job without devices uses none anyway.
        self._access = np.array(
            [[not a.types or kind in a.types for a in workload.asks] for kind in rooms.kinds], dtype=np.bool_
        ).reshape(len(rooms.kinds), len(workload.asks)) & (milli > 0)
        nodes = len(rooms.nodes)
        self._rows: dict[Ask, int] = {}  # of a class, in the next two
        self._scores = np.full((64, nodes), _NONE, dtype=np.int64)  # _NONE: not known
        self._which = np.full((64, nodes), _NONE, dtype=np.int64)  # the device that a partial job would get
        self._stale = np.ones(nodes, dtype=np.bool_)
        self._now = np.zeros(nodes)  # how fragmented they are
        # Of each node, for each amount: how many devices have so much free; what is free on the others.
        self._fits = np.zeros((nodes, len(self._amounts)), dtype=np.int64)
        self._small = np.zeros_like(self._fits)

    def copy(self) -> Fragments:
        """For trying things out."""
        other = object.__new__(Fragments)
        other.__dict__.update(self.__dict__)
        other._rows = self._rows.copy()
        other._scores, other._which = self._scores.copy(), self._which.copy()
        other._stale, other._now = self._stale.copy(), self._now.copy()
        other._fits, other._small = self._fits.copy(), self._small.copy()
        return other

    def changed(self, place: int) -> None:
        """Something was taken or given back there."""
        self._stale[place] = True
        self._scores[:, place] = _NONE

    def scores(self, rooms: Rooms, ask: Ask, places: Ints) -> Ints:
        """By how much the nodes' fragmentation shrinks, from 0 to 100; 50: not at all."""
        scores, which = self._of(ask)
        unknown = places[scores[places] == _NONE]
        if len(unknown):
            self._find_out(rooms, ask, unknown, scores, which)
        return scores[places]

    def device(self, rooms: Rooms, ask: Ask, place: int) -> int:
        """The one that fragments the node least."""
        scores, which = self._of(ask)
        if scores[place] == _NONE:
            self._find_out(rooms, ask, np.array([place]), scores, which)
        return int(which[place])

    def _of(self, ask: Ask) -> tuple[Ints, Ints]:
        row = self._rows.setdefault(ask, len(self._rows))
        if row == len(self._scores):
            self._scores = np.concatenate([self._scores, np.full_like(self._scores, _NONE)])
            self._which = np.concatenate([self._which, np.full_like(self._which, _NONE)])
        return self._scores[row], self._which[row]

    def _find_out(self, rooms: Rooms, ask: Ask, places: Ints, scores: Ints, which: Ints) -> None:
        self._refresh(rooms, places[self._stale[places]])
        best = np.full(len(places), _NONE, dtype=np.int64)
        devices = rooms.devices[places]
        if not ask.partial:
            taken = np.zeros(devices.shape, dtype=np.bool_)
            if ask.devices:
                free = devices == MILLI
                taken = free & (free.cumsum(axis=1) <= ask.devices)
            count = taken.sum(axis=1)[:, None]
            # Free devices have every amount; taken ones have none, and nothing on them is lost.
            after = self._amount(
                rooms, places, ask, self._fits[places] - count, self._small[places], ask.devices
            )
            scores[places] = _percent(self._now[places] - after)
            return
        for index in range(devices.shape[1]):
            before = devices[:, index]
            # Of devices with as much free the first stands for all.
            first = ~(devices[:, :index] == before[:, None]).any(axis=1)
            ok = np.flatnonzero((before >= ask.milli) & first)
            if not len(ok):
                continue
            old, new = before[ok, None], before[ok, None] - ask.milli
            enough, still = old >= self._amounts, new >= self._amounts
            fits = self._fits[places[ok]] - (enough & ~still)
            small = self._small[places[ok]] - np.where(enough, 0, old) + np.where(still, 0, new)
            found = _percent(self._now[places[ok]] - self._amount(rooms, places[ok], ask, fits, small, 1))
            better = found > best[ok]
            best[ok[better]] = found[better]
            which[places[ok[better]]] = index
        scores[places] = best

    def _refresh(self, rooms: Rooms, places: Ints) -> None:
        if not len(places):
            return
        devices = rooms.devices[places]
        enough = devices[:, :, None] >= self._amounts
        self._fits[places] = enough.sum(axis=1)
        self._small[places] = np.where(enough, 0, np.maximum(devices, 0)[:, :, None]).sum(axis=1)
        self._now[places] = self._amount(rooms, places, None, self._fits[places], self._small[places], 0)
        self._stale[places] = False

    def _amount(
        self, rooms: Rooms, places: Ints, ask: Ask | None, fits: Ints, small: Ints, devices: int
    ) -> Floats:
        """How fragmented these nodes are, in milli-devices, when a job has taken so many devices there."""
        cpu, total = rooms.cpu[places], rooms.left[places]
        if ask is not None:
            cpu, total = cpu - ask.cpu_milli, total - devices * ask.milli
        usable = (cpu[:, None] >= self._cpu) & (fits[:, self._amount_of] >= self._count)
        usable &= self._access[rooms.kind[places]]
        lost = np.where(usable, small[:, self._amount_of], total[:, None])
        return lost @ self._weights


def _percent(gain: Floats) -> Ints:
    return (100.0 / (1.0 + np.exp(-gain / 1000.0))).astype(np.int64)
