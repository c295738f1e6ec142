"""Whole devices and parts of one, with processors and memory, where a score says: random, best fit.

A job goes to the node with the best score of those that it fits on, ties by a seeded order of the nodes; one
that asks for part of a device goes to the device that the score chooses. As in the simulator of Weng et al.,
USENIX ATC'23 ("Beware of fragmentation"), whose table tests/sim reproduces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from midstep.sim.fleet import Fleet
from midstep.sim.policy import Grant
from midstep.sim.rooms import Ask, Ints, Rooms, ask_of
from midstep.sim.trace import MILLI, Job

CPU_SCALE, DEVICE_SCALE = 128_000.0, 8 * MILLI  # what the largest node has: scores are fractions of it


class Score(Protocol):
    """Chooses among nodes, and among the devices of the chosen one."""

    def scores(self, rooms: Rooms, ask: Ask, places: Ints) -> Ints:
        """Of those nodes, which it fits on; the highest wins."""
        ...

    def device(self, rooms: Rooms, ask: Ask, place: int) -> int:
        """Which device a partial job gets there."""
        ...

    def changed(self, place: int) -> None:
        """Something was taken or given back there."""
        ...

    def copy(self) -> Score:
        """For trying things out."""
        ...


class Shares:
    """Placement by a score; a `Placer`. Jobs larger than the largest node get whole free nodes of it and a
    remainder."""

    def __init__(self, fleet: Fleet, nodes: Sequence[int], score: Score, seed: int) -> None:
        self.rooms = Rooms(fleet, nodes)
        self._empty = self.rooms.copy()
        self._score = score
        order = list(range(len(nodes)))
        random.Random(f"nodes {seed}").shuffle(order)
        self._rank = np.array(order, dtype=np.int64)

    def copy(self) -> Shares:
        """For trying things out."""
        other = object.__new__(Shares)
        other.__dict__.update(self.__dict__)
        other.rooms, other._score = self.rooms.copy(), self._score.copy()
        return other

    @property
    def total(self) -> int:
        """Devices, free or not."""
        return self.rooms.total

    @property
    def free(self) -> int:
        """Devices that are wholly free."""
        return int((self.rooms.devices == MILLI).sum())

    def place(self, job: Job) -> Grant | None:
        """See `Placer`."""
        steps = self._steps(job)
        taken: list[tuple[int, Ask, tuple[int, ...]]] = []
        for ask in steps:
            found = self._one(ask)
            if found is None:
                for place, given, which in taken:
                    self._back(place, given, which)
                return None
            self.rooms.take(found[0], ask, found[1])
            self._score.changed(found[0])
            taken.append((found[0], ask, found[1]))
        nodes = tuple(self.rooms.nodes[place] for place, _, _ in taken)
        which = taken[0][2] if len(taken) == 1 else tuple(index for _, _, found in taken for index in found)
        return Grant(nodes, tuple(len(found) for _, _, found in taken), job.milli, which)

    def give_back(self, job: Job, grant: Grant) -> None:
        """They are free again."""
        which = iter(grant.which)
        for node, ask in zip(grant.nodes, _parts(job, grant.counts)):
            self._back(self.rooms.place_of[node], ask, tuple(next(which) for _ in range(ask.devices)))

    def fits(self, job: Job) -> bool:
        """See `Placer`."""
        steps = self._steps(job)
        if len(steps) == 1:
            return bool(self.rooms.fits(steps[0]).any())
        trial = self.copy()
        return trial.place(job) is not None

    def take(self, job: Job, grant: Grant) -> Grant:
        """See `Placer`. Where the grant does not say which devices: the first that are free."""
        which = iter(grant.which)
        taken: list[int] = []
        for node, ask in zip(grant.nodes, _parts(job, grant.counts)):
            place = self.rooms.place_of[node]
            free = np.flatnonzero(self.rooms.devices[place] >= max(1, ask.milli))
            here = [next(which) for _ in range(ask.devices)] if grant.which else [int(i) for i in free]
            taken += here[: ask.devices]
            self.rooms.take(place, ask, tuple(here[: ask.devices]))
            self._score.changed(place)
        return replace(grant, which=tuple(taken))

    def lose(self, node: int) -> None:
        """See `Placer`."""
        place = self.rooms.place_of.get(node)
        if place is not None:
            self.rooms.close(place)
            self._score.changed(place)

    def regain(self, node: int) -> None:
        """See `Placer`."""
        place = self.rooms.place_of.get(node)
        if place is not None:
            self.rooms.reopen(place, self._empty)
            self._score.changed(place)

    def possible(self, job: Job) -> str:
        """See `Placer`."""
        steps = self._steps(job)
        free = np.ones(len(self.rooms.nodes), dtype=np.bool_)
        for ask in steps:
            ok = np.flatnonzero(self._empty.fits(ask) & free)
            if not len(ok):
                most = int((self._empty.devices >= 0).sum(axis=1).max(initial=0))
                return (
                    f"asks for {job.size:g} devices, {job.cpus:g} processors and {job.mem_gib:g} GiB"
                    f"{' of ' + '|'.join(job.device_types) if job.device_types else ''}; no nodes have them"
                    f" (at most {most} devices on a node, {self._empty.total} in all)"
                )
            if len(steps) > 1:
                free[ok[0]] = False
        return ""

    def _steps(self, job: Job) -> list[Ask]:
        widest = self.rooms.devices.shape[1]
        ask = ask_of(job)
        if ask.devices <= widest:
            return [ask]
        count, rest = divmod(ask.devices, widest)
        parts = [widest] * count + [rest] * (rest > 0)
        share = [(n, ask.cpu_milli * n // ask.devices, ask.mem_mib * n // ask.devices) for n in parts]
        return [Ask(cpu, mem, n, ask.milli, ask.types) for n, cpu, mem in share]

    def _one(self, ask: Ask) -> tuple[int, tuple[int, ...]] | None:
        places = np.flatnonzero(self.rooms.fits(ask))
        if not len(places):
            return None
        scores = self._score.scores(self.rooms, ask, places)
        best = places[scores == scores.max()]
        place = int(best[self._rank[best].argmin()])
        if ask.partial:
            return place, (self._score.device(self.rooms, ask, place),)
        free = np.flatnonzero(self.rooms.devices[place] >= max(1, ask.milli))
        return place, tuple(int(index) for index in free[: ask.devices])

    def _back(self, place: int, ask: Ask, which: tuple[int, ...]) -> None:
        self.rooms.give(place, ask, which)
        self._score.changed(place)


def _parts(job: Job, counts: tuple[int, ...]) -> list[Ask]:
    """What a job takes of each node, with so many devices of it."""
    ask = ask_of(job)
    if counts == (ask.devices,):
        return [ask]
    whole = max(1, ask.devices)
    return [
        Ask(ask.cpu_milli * n // whole, ask.mem_mib * n // whole, n, ask.milli, ask.types) for n in counts
    ]


class Random:
    """Any node that it fits on, any device of it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"placement {seed}")

    def scores(self, rooms: Rooms, ask: Ask, places: Ints) -> Ints:
        """One node, drawn, before all others."""
        found = np.zeros(len(places), dtype=np.int64)
        found[self._chance.randrange(len(places))] = 1
        return found

    def device(self, rooms: Rooms, ask: Ask, place: int) -> int:
        """Drawn."""
        fitting = np.flatnonzero(rooms.devices[place] >= ask.milli)
        return int(fitting[self._chance.randrange(len(fitting))])

    def changed(self, place: int) -> None:
        """Nothing to it."""

    def copy(self) -> Random:
        """With the same chance to come."""
        other = Random(0)
        other._chance.setstate(self._chance.getstate())
        return other


class BestFit:
    """The node of which least is left, processors and devices weighed alike, in whole percents; of its
    devices the one with least left."""

    def scores(self, rooms: Rooms, ask: Ask, places: Ints) -> Ints:
        """See the class."""
        cpu = np.minimum(rooms.cpu[places] - ask.cpu_milli, CPU_SCALE) / CPU_SCALE
        device = (rooms.left[places] - ask.devices * ask.milli) / DEVICE_SCALE
        return ((1.0 - (cpu + device) / 2) * 100).astype(np.int64)

    def device(self, rooms: Rooms, ask: Ask, place: int) -> int:
        """See the class."""
        left = rooms.devices[place]
        return int(np.where(left >= ask.milli, left, MILLI + 1).argmin())

    def changed(self, place: int) -> None:
        """Nothing is kept."""

    def copy(self) -> BestFit:
        """There is nothing to it."""
        return self
