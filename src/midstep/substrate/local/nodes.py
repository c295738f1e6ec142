"""Virtual nodes: making one, finding everything that runs in one, keeping one alive when its holder dies."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from midstep.substrate.errors import StartTimeout
from midstep.substrate.local import holder as holder_program
from midstep.substrate.local import network
from midstep.substrate.local.paths import INSIDE, INSIDE_NODE, StatePaths
from midstep.substrate.local.plan import FleetPlan, NodePlan
from midstep.substrate.local.processes import Identity, every_pid, identify, kill, load, spawn


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """A process inside a node."""

    node: str
    identity: Identity


def ensure_node(paths: StatePaths, plan: FleetPlan, node: NodePlan) -> Identity:
    """The node's holder; made when it is not there. A node whose holder was killed while others live on keeps
    its namespaces. StartTimeout: the node could not be furnished."""
    if (there := holder_of(paths, node.name)) is not None:
        return there
    if (unfinished := load(holder_file(paths, node.name))) is not None:
        kill([unfinished])  # whoever started it was killed: nobody is in there yet
    agent = load(paths.process(f"agent-{node.name}"))
    inside = [i for i in inhabitants(paths) if i.node == node.name]
    keep = agent or (inside[0].identity if inside else None)
    holder = _start_holder(paths, node, keep, join_mount=agent is not None)
    if keep is None:
        network.plug(plan, node, holder.pid)
    return holder


def holder_of(paths: StatePaths, node: str) -> Identity | None:
    """The node's holder if the node is complete; before that its namespaces may still be the machine's."""
    holder = load(holder_file(paths, node))
    try:
        name = Path(f"/proc/{holder.pid}/comm").read_bytes().strip() if holder is not None else b""
    except OSError:
        return None
    return holder if name == holder_program.NAME else None


def holder_file(paths: StatePaths, node: str) -> Path:
    """Its process file."""
    return paths.process(f"holder-{node}")


def write_hosts(paths: StatePaths, plan: FleetPlan) -> None:
    """Every node's /etc/hosts: all nodes by name. Rewritten in place: it is bound into running nodes."""
    everyone = "".join(f"{n.address}\t{n.name}\n" for n in plan.nodes)
    for node in plan.nodes:
        paths.node(node.name).mkdir(parents=True, exist_ok=True)
        paths.vault(node.region).mkdir(parents=True, exist_ok=True)
        paths.hosts(node.name).write_text(
            f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{plan.host}\tmidstep\n{everyone}"
        )


def inhabitants(paths: StatePaths) -> list[Inhabitant]:
    """Everything that runs inside any node of this fleet, told by what it sees, not by files of ours: a
    process belongs to a node if its INSIDE_NODE is that node's folder, or if it shares the network namespace
    of one that does."""
    homes = _homes(paths)
    if not homes:
        return []
    own_network = _namespace(os.getpid())
    networks: dict[int, str] = {}
    found: dict[int, str] = {}
    pids = every_pid()
    for pid in pids:
        name = homes.get(_identity_of(Path(f"/proc/{pid}/root{INSIDE_NODE}")) or (0, 0))
        if name is not None:
            found[pid] = name
            networks.setdefault(_namespace(pid), name)
    networks.pop(own_network, None)
    networks.pop(0, None)
    for pid in pids:
        name = networks.get(_namespace(pid))
        if pid not in found and name is not None:
            found[pid] = name
    living = ((name, identify(pid)) for pid, name in sorted(found.items()))
    return [Inhabitant(name, identity) for name, identity in living if identity is not None]


def enter_command(holder: Identity) -> list[str]:
    """The words before a command that shall run inside the node."""
    return ["nsenter", "-t", str(holder.pid), "-m", "-n", "-u", "-i", "--"]


def _start_holder(paths: StatePaths, node: NodePlan, keep: Identity | None, join_mount: bool) -> Identity:
    INSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
    config = {
        "name": node.name,
        "state": str(paths.root),
        "node": str(paths.node(node.name)),
        "vault": str(paths.vault(node.region)),
        "hosts": str(paths.hosts(node.name)),
        "join": keep.pid if keep else 0,
        "join_mount": join_mount and keep is not None,
    }
    program = str(Path(holder_program.__file__))
    argv = [sys.executable, "-I", "-S", program, json.dumps(config)]
    process = spawn(argv, holder_file(paths, node.name), log=None)
    assert process.stdout is not None
    with process.stdout:
        answer = process.stdout.readline().strip()
    identity = identify(process.pid)
    if answer != "ready" or identity is None:
        raise StartTimeout(
            answer or f"node {node.name}: its holder ended", "`midstep doctor` says what is missing"
        )
    return identity


def _homes(paths: StatePaths) -> dict[tuple[int, int], str]:
    if not paths.nodes.is_dir():
        return {}
    homes = {_identity_of(folder): folder.name for folder in paths.nodes.iterdir() if folder.is_dir()}
    return {key: name for key, name in homes.items() if key is not None}


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0
