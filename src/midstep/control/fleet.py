"""The nodes that the controller knows, connected or not."""

from __future__ import annotations

from dataclasses import replace

from midstep.control.errors import AgentRefused
from midstep.control.journal import Journal
from midstep.control.scheduling.cordons import Cordons
from midstep.model.fleet import Node, NodeStatus


class Fleet:
    """Nodes by name. ``regions``: those that have a vault; a node of any other cannot join."""

    def __init__(self, journal: Journal, regions: tuple[str, ...]) -> None:
        self._journal = journal
        self.regions = regions
        self.cordons = Cordons(journal)
        self.nodes: dict[str, NodeStatus] = {status.node.name: status for status in journal.nodes()}

    @property
    def connected(self) -> dict[str, Node]:
        """The nodes whose agents are connected."""
        return {name: status.node for name, status in self.nodes.items() if status.connected}

    @property
    def known(self) -> dict[str, Node]:
        """All nodes."""
        return {name: status.node for name, status in self.nodes.items()}

    def join(self, node: Node, now_s: float) -> None:
        """A node's agent connected. Raises AgentRefused."""
        if node.region not in self.regions:
            known = ", ".join(self.regions)
            raise AgentRefused(f"node {node.name} is of region {node.region!r}; this controller has {known}")
        if not node.name or not node.devices or len({d.index for d in node.devices}) != len(node.devices):
            raise AgentRefused(f"node {node.name!r} must have a name and devices with different indices")
        before = self.nodes.get(node.name)
        if before is not None and before.connected and before.node.address != node.address:
            message = f"another node of the name {node.name} is connected, from {before.node.address}"
            raise AgentRefused(f"{message}; names must be unique in a fleet")
        self.nodes[node.name] = NodeStatus(node, True, now_s)
        self._journal.save_node(self.nodes[node.name])

    def seen(self, name: str, now_s: float) -> None:
        """A node's agent said something."""
        self.nodes[name] = replace(self.nodes[name], last_seen_s=now_s)

    def leave(self, name: str) -> None:
        """A node's agent is not connected any more."""
        self.nodes[name] = replace(self.nodes[name], connected=False)
        self._journal.save_node(self.nodes[name])
