"""Is anything idle that a waiting job could use? Kept up to date by the core beside the policy, with
placements of its own, so that no policy answers for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from heapq import heappop, heappush

from midstep.sim.policy import Grant, Placer
from midstep.sim.trace import Job

Least = Callable[[Job], int]  # devices that a job can do with


class _Kind:
    """Waiting jobs that differ in their number of devices alone: if the smallest does not fit, none does."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # a heap; sizes that nobody waits with any more are left in
        self.waiting: dict[int, int] = {}  # size -> how many wait
        self.like: dict[int, Job] = {}  # size -> a job of it

    def smallest(self) -> Job | None:
        while self.sizes:
            if self.waiting[self.sizes[0]]:
                return self.like[self.sizes[0]]
            del self.waiting[heappop(self.sizes)]
        return None


class _Part:
    """Jobs that may go to the same clusters."""

    def __init__(self, placers: Mapping[str, Placer]) -> None:
        self.placers = placers
        self.kinds: dict[tuple[object, ...], _Kind] = {}
        self.touched = False
        self.idle = 0

    def look(self) -> int:
        """Devices that are free in clusters where a waiting job fits."""
        smallest = [job for kind in self.kinds.values() if (job := kind.smallest()) is not None]
        return sum(
            placer.free
            for placer in self.placers.values()
            if smallest and placer.free and any(placer.fits(job) for job in smallest)
        )


class Watch:
    """``clusters``: a placement for each; ``nodes``: node -> its cluster; ``where``: of each job, by index,
    the cluster that it is bound to, "" if to none. ``least``: with how many devices a job would start."""

    def __init__(
        self, clusters: Mapping[str, Placer], nodes: list[str], where: list[str], least: Least | None
    ) -> None:
        self._clusters, self._nodes, self._where, self._least = clusters, nodes, where, least
        self._parts = {name: _Part({name: placer}) for name, placer in clusters.items()}
        # One for all shares its placements with the others; then there is nobody in those.
        self._parts[""] = _Part(clusters)
        self._idle = 0
        self._held: dict[int, list[tuple[str, Grant]]] = {}  # of a job: of each cluster

    def waits(self, job: Job) -> None:
        """One more."""
        if not job.devices:
            return  # it keeps none from anybody
        part, kind, size = self._find(job)
        part.touched = True
        if size not in kind.waiting:
            kind.waiting[size] = 0
            kind.like[size] = job if size == job.devices else replace(job, devices=size)
            heappush(kind.sizes, size)
        kind.waiting[size] += 1

    def waits_no_more(self, job: Job) -> None:
        """One less."""
        if not job.devices:
            return
        part, kind, size = self._find(job)
        part.touched = True
        kind.waiting[size] -= 1

    def taken(self, job: Job, grant: Grant) -> None:
        """By a job that starts, or moves."""
        clusters = {self._nodes[node] for node in grant.nodes}
        held: list[tuple[str, Grant]] = []
        for cluster in sorted(clusters):
            part = grant
            if len(clusters) > 1:
                part = _within(grant, [self._nodes[node] == cluster for node in grant.nodes])
            held.append((cluster, self._clusters[cluster].take(job, part)))
            self._touch(cluster)
        self._held[job.index] = held

    def given_back(self, job: Job) -> None:
        """By a job that ends, stops or moves."""
        for cluster, grant in self._held.pop(job.index):
            self._clusters[cluster].give_back(job, grant)
            self._touch(cluster)

    def lost(self, node: int) -> None:
        """It failed; nobody has anything of it."""
        self._clusters[self._nodes[node]].lose(node)
        self._touch(self._nodes[node])

    def back(self, node: int) -> None:
        """It is there again."""
        self._clusters[self._nodes[node]].regain(node)
        self._touch(self._nodes[node])

    def idle(self) -> int:
        """Devices that are free now in clusters where a waiting job fits."""
        for part in self._parts.values():
            if part.touched:
                part.touched = False
                self._idle -= part.idle
                part.idle = part.look()
                self._idle += part.idle
        return self._idle

    def _touch(self, cluster: str) -> None:
        self._parts[cluster].touched = self._parts[""].touched = True

    def _find(self, job: Job) -> tuple[_Part, _Kind, int]:
        part = self._parts[self._where[job.index]]
        size = min(job.devices, self._least(job)) if self._least else job.devices
        key = (job.device_types, job.milli, job.cpus, job.mem_gib)
        kind = part.kinds.get(key)
        if kind is None:
            kind = part.kinds[key] = _Kind()
        return part, kind, size


def _within(grant: Grant, chosen: list[bool]) -> Grant:
    """A grant's nodes in one cluster."""
    nodes = tuple(node for node, here in zip(grant.nodes, chosen) if here)
    counts = tuple(count for count, here in zip(grant.counts, chosen) if here)
    return Grant(nodes, counts, grant.milli)
