"""Where a trace is replayed: nodes with their region, cluster, rack and devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from midstep.sim.failures import Failures
from midstep.sim.trace import Job, Trace


@dataclass(frozen=True, slots=True)
class SimNode:
    """``cpus`` and ``mem_gib`` 0: not counted. ``spot``: it may be taken away at short notice."""

    name: str
    cluster: str
    device_type: str
    devices: int
    region: str = "main"
    rack: str = ""
    cpus: float = 0.0
    mem_gib: float = 0.0
    spot: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    """``groups``: cluster -> group -> how many of its nodes a static partition gives it. ``prices``: of a
    device hour, by type; none: cost is counted in device hours. ``failures`` None: no node fails, or is
    taken away."""

    nodes: tuple[SimNode, ...]
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    prices: Mapping[str, float] = field(default_factory=dict[str, float])
    failures: Failures | None = None

    @property
    def devices(self) -> int:
        """In all."""
        return sum(node.devices for node in self.nodes)

    @property
    def clusters(self) -> dict[str, tuple[int, ...]]:
        """Cluster -> the indices of its nodes; clusters in the order of the file."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            found.setdefault(node.cluster, []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    @property
    def spot_share(self) -> float:
        """Of its nodes, those that may be taken away."""
        return sum(node.spot for node in self.nodes) / max(1, len(self.nodes))

    def price(self, device_type: str) -> float:
        """Of a device hour."""
        return self.prices.get(device_type, 0.0) if self.prices else 1.0


def alike(cluster: str, nodes: int, devices: int, device_type: str = "gpu") -> list[SimNode]:
    """So many equal nodes."""
    width = len(str(max(0, nodes - 1)))
    return [SimNode(f"{cluster}-{i:0{width}}", cluster, device_type, devices) for i in range(nodes)]


def cluster_of(fleet: Fleet, job: Job) -> str:
    """The cluster where a job is simulated: the one that it names; else, of those with its device types, the
    one with the most devices; "" if there is none."""
    sizes: dict[str, int] = {}
    for node in fleet.nodes:
        if not job.device_types or node.device_type in job.device_types:
            sizes[node.cluster] = sizes.get(node.cluster, 0) + node.devices
    if job.cluster in sizes or not sizes:
        return job.cluster if sizes else ""
    return max(sizes, key=lambda name: (sizes[name], name))


def demand(jobs: Iterable[Job]) -> dict[str, float]:
    """Group -> the device seconds that its jobs take."""
    found: dict[str, float] = {}
    for job in jobs:
        found[job.group] = found.get(job.group, 0.0) + job.size * job.duration_s
    return found


def offered_load(fleet: Fleet, trace: Trace) -> float:
    """Device time asked for / device time that there is between the first and the last submission."""
    if len(trace.jobs) < 2 or not fleet.devices:
        return 0.0
    span_s = max(1, trace.jobs[-1].submit_s - trace.jobs[0].submit_s)
    return sum(job.size * job.duration_s for job in trace.jobs) / (span_s * fleet.devices)
