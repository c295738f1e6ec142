"""The fleet's network: a bridge, and a cable to every node. Links carry the fleet's alias, by which they are
found."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midstep.substrate.errors import FleetConflict, SubstrateError
from midstep.substrate.local.paths import INSIDE
from midstep.substrate.local.plan import FIRST_PORT, FleetPlan, NodePlan

CANDIDATES = [f"10.{second}.{third}.0/24" for second in (213, 214, 97) for third in range(256)]
UNFINISHED = " (unfinished)"  # ends the alias of a cable whose far end may not be set up yet
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@contextmanager
def machine_lock() -> Generator[None]:
    """One fleet at a time looks for a free subnet and takes it."""
    INSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (INSIDE / "network.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def free_subnet(preferred: str = "") -> str:
    """A subnet that no address or route of this machine touches. FleetConflict: none is free."""
    taken = _taken()
    for candidate in [preferred, *CANDIDATES] if preferred else CANDIDATES:
        network = ipaddress.ip_network(candidate)
        if not any(network.overlaps(other) for other in taken):
            return candidate
    raise FleetConflict("no free subnet for the fleet's network", "`ip route` shows what is in use")


def free_port(host: str, preferred: int = FIRST_PORT) -> int:
    """A port on which the controller can listen at ``host``."""
    for port in range(preferred, preferred + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise FleetConflict(f"no free port at {host} from {preferred} on")


def make_bridge(plan: FleetPlan) -> None:
    """The bridge with the machine's address on it. SubstrateError: the kernel refused."""
    ip(
        f"link add {plan.bridge} type bridge",
        f"link set {plan.bridge} alias {plan.alias}",
        f"addr add {plan.host}/{plan.prefix} dev {plan.bridge}",
        f"link set {plan.bridge} up",
    )


def mend(plan: FleetPlan, holders: dict[str, int]) -> list[str]:
    """Make again what somebody took away under a running fleet: the bridge, and cables of nodes whose holders
    (node -> process) are there. Answers what was missing."""
    links = own_links(plan.alias, finished=True)
    missing: list[str] = []
    if plan.bridge not in links:
        missing.append(plan.bridge)
        make_bridge(plan)
        ip(*(f"link set {name} master {plan.bridge}" for name in links))
    for node in plan.nodes:
        if node.veth not in links and node.name in holders:
            missing.append(node.veth)
            plug(plan, node, holders[node.name])
    return missing


def plug(plan: FleetPlan, node: NodePlan, pid: int) -> None:
    """A cable from the bridge into the network namespace of ``pid``; replaces one that is left from before.
    Its alias is set last of all: whoever comes after us, if we are killed on the way, makes it anew."""
    if node.veth in own_links(plan.alias):
        ip(f"link del {node.veth}")
    ip(
        f"link add {node.veth} type veth peer name eth0 netns {pid}",
        f'link set {node.veth} alias "{plan.alias}{UNFINISHED}"',
        f"link set {node.veth} master {plan.bridge} up",
    )
    inside = ("nsenter", "-t", str(pid), "-n")
    ip(
        "link set lo up",
        f"addr add {node.address}/{plan.prefix} dev eth0",
        "link set eth0 up",
        f"route add default via {plan.host}",
        prefix=inside,
    )
    ip(f"link set {node.veth} alias {plan.alias}")


def own_links(alias: str, finished: bool = False) -> list[str]:
    """The names of all links of a fleet, cables before bridges. ``finished``: only those made to the end."""
    aliases = (alias,) if finished else (alias, alias + UNFINISHED)
    links = [row for row in _json("-d", "link", "show") if row.get("ifalias") in aliases]
    links.sort(key=lambda row: row.get("linkinfo", {}).get("info_kind") == "bridge")
    return [str(row["ifname"]) for row in links]


def remove_links(alias: str) -> list[str]:
    """Take away all links of a fleet; answers their names."""
    names = own_links(alias)
    for name in names:
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
    return names


def bridge_is_filtered() -> bool:
    """The machine's firewall sees what crosses the bridge and may drop it (Docker's default policy does)."""
    try:
        return BRIDGE_FILTER.read_text().strip() == "1"
    except OSError:
        return False


def ip(*commands: str, prefix: Sequence[str] = ()) -> None:
    """Run `ip` commands as one batch. SubstrateError: one was refused."""
    batch = "\n".join(commands) + "\n"
    done = subprocess.run(
        [*prefix, "ip", "-batch", "-"], input=batch, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SubstrateError(
            f"ip {' / ip '.join(commands)}: {done.stderr.strip() or done.stdout.strip()}",
            "`midstep doctor` says what this machine lacks; `midstep down` clears what was begun",
        )


def _taken() -> list[ipaddress.IPv4Network]:
    found: list[ipaddress.IPv4Network] = []
    for row in _json("-4", "route", "show", "table", "all"):
        target = str(row.get("dst", "default"))
        if target != "default":
            found.append(ipaddress.IPv4Network(target, strict=False))
    for row in _json("-4", "addr"):
        for address in row.get("addr_info", []):
            found.append(ipaddress.IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False))
    return found


def _json(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=False)
    rows: list[dict[str, Any]] = json.loads(done.stdout) if done.stdout.strip() else []
    return rows
