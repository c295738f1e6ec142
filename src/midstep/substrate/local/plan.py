"""The shape of an embedded fleet: which regions, nodes and devices, under which names and addresses. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from midstep.model.fleet import Device
from midstep.model.job import CheckpointRule
from midstep.substrate.errors import FleetConflict

REGION_NAMES = ("north", "south", "east", "west")
MAX_NODES = 200  # addresses .2 to .201 of a /24
FIRST_PORT = 7474


@dataclass(frozen=True, slots=True)
class Shape:
    """What the user asked for: so many regions, nodes in each, devices in each node; the last ``spot`` nodes
    of each region may be taken away at short notice."""

    regions: int = 2
    nodes: int = 2
    devices: int = 2
    spot: int = 0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One virtual node. ``veth`` is the host's end of its cable; inside, the other end is eth0."""

    name: str
    region: str
    address: str
    veth: str
    devices: tuple[Device, ...]
    spot: bool = False


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Everything about a fleet that must be the same after a restart. ``host`` is the machine's own address
    in it."""

    name: str
    state: str
    shape: Shape
    bridge: str
    subnet: str
    host: str
    port: int
    nodes: tuple[NodePlan, ...]
    overcommitted: bool = False
    version: int = 1
    checkpoints: CheckpointRule | None = None  # None: the controller's own rule
    lost_node_s: float | None = None
    rest_s: float | None = None  # for how long a job that was moved is left alone
    federated: bool = False  # a controller for each region, and a global one above them
    region_ports: tuple[int, ...] = ()  # of the regions' controllers, if they have their own

    @property
    def url(self) -> str:
        """Where the controller answers: the global one, if there is one."""
        return f"http://{self.host}:{self.port}"

    def url_of(self, region: str) -> str:
        """Where the controller of a region answers."""
        if not self.federated:
            return self.url
        return f"http://{self.host}:{self.region_ports[self.regions.index(region)]}"

    @property
    def prefix(self) -> int:
        """Bits of the subnet's prefix."""
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions' names, in order."""
        return tuple(dict.fromkeys(n.region for n in self.nodes))

    @property
    def alias(self) -> str:
        """Marks this fleet's network links, so that they are found even if every file is lost."""
        return f"midstep:{self.state}"

    def node(self, name: str) -> NodePlan:
        """A node by name. KeyError: there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


PLAN: TypeAdapter[FleetPlan] = TypeAdapter(FleetPlan)


def make_plan(
    name: str,
    state: Path,
    shape: Shape,
    groups: tuple[Device, ...],
    overcommitted: bool,
    federated: bool = False,
) -> FleetPlan:
    """Name everything; `readdress` gives it a network. ``groups``: as many groups of cores as the shape has
    devices, or this machine's GPUs, of which every node lists the first ones. FleetConflict: too many
    nodes."""
    if shape.regions * shape.nodes > MAX_NODES:
        raise FleetConflict(
            f"{shape.regions * shape.nodes} nodes on one machine", f"at most {MAX_NODES} are possible"
        )
    tag = hashlib.sha256(str(state).encode()).hexdigest()[:6]
    return FleetPlan(
        name=name or f"midstep-{tag}",
        state=str(state),
        shape=shape,
        bridge=f"ms{tag}",
        subnet="",
        host="",
        port=0,
        nodes=tuple(_nodes(shape, tag, groups)),
        overcommitted=overcommitted,
        federated=federated,
    )


def readdress(plan: FleetPlan, subnet: str, port: int) -> FleetPlan:
    """The same fleet in another subnet (its old one may have been taken while it was down)."""
    hosts = list(ipaddress.ip_network(subnet).hosts())
    nodes = tuple(replace(n, address=str(hosts[i + 1])) for i, n in enumerate(plan.nodes))
    return replace(plan, subnet=subnet, host=str(hosts[0]), port=port, nodes=nodes)


def _nodes(shape: Shape, tag: str, groups: tuple[Device, ...]) -> list[NodePlan]:
    nodes: list[NodePlan] = []
    for r in range(shape.regions):
        region = REGION_NAMES[r] if r < len(REGION_NAMES) else f"region{r + 1}"
        for k in range(shape.nodes):
            index = len(nodes)
            own = _devices_of(index, shape.devices, groups)
            spot = k >= shape.nodes - shape.spot
            nodes.append(NodePlan(f"{region}-{k + 1}", region, "", f"ms{tag}-{index}", own, spot))
    return nodes


def _devices_of(node: int, count: int, groups: tuple[Device, ...]) -> tuple[Device, ...]:
    if not groups[0].device_type.startswith("cpu-"):
        return groups[:count]  # a GPU keeps its number: it is what the driver calls it
    return tuple(replace(d, index=i) for i, d in enumerate(groups[node * count : (node + 1) * count]))
