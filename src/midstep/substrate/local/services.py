"""The controller and the agents as processes: their configuration files, and the commands that start them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import midstep
from midstep.env import real_ids
from midstep.substrate.local.nodes import enter_command
from midstep.substrate.local.paths import INSIDE_NODE, INSIDE_VAULT, StatePaths
from midstep.substrate.local.plan import FleetPlan, NodePlan
from midstep.substrate.local.processes import Identity

CONTROLLER = "controller"
CENTRE = "global"
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
)

_BUCKETS = ("AWS_", "AZURE_STORAGE_", "GOOGLE_APPLICATION_CREDENTIALS")  # of archives; no job gets them


def agent_name(node: str) -> str:
    """The process name of a node's agent."""
    return f"agent-{node}"


def write_configs(paths: StatePaths, plan: FleetPlan, criu: Path | None) -> None:
    """Write what the controller, every agent and the client read. All hold the token: mode 600."""
    token = _token(paths)
    client = {"url": plan.url, "token": token, "fleet": plan.name, "local": True}
    write_private(paths.client, client)
    for region in plan.regions if plan.federated else ():  # for whoever asks a region that is cut off
        paths.controller_of(region).mkdir(exist_ok=True)
        write_private(paths.controller_of(region) / "client.json", {**client, "url": plan.url_of(region)})
    for name, content in controllers(paths, plan, token).items():
        write_private(paths.config(name), content)
    for node in plan.nodes:
        paths.node(node.name).mkdir(exist_ok=True)
        write_private(agent_config(paths, node), _agent(plan, node, token, criu))


def controllers(paths: StatePaths, plan: FleetPlan, token: str) -> dict[str, dict[str, object]]:
    """Process name -> configuration of every controller: one, or one for each region and the global one."""
    base: dict[str, object] = {"fleet": plan.name, "token": token, "host": plan.host}
    rules: dict[str, object] = {}
    if plan.checkpoints is not None:
        rules["checkpoints"] = asdict(plan.checkpoints)
    if plan.lost_node_s is not None:
        rules["lost_node_s"] = plan.lost_node_s
    if plan.rest_s is not None:
        rules["rest_s"] = plan.rest_s
    vaults = {region: str(paths.vault(region)) for region in plan.regions}
    if not plan.federated:
        own = {"state_dir": str(paths.controller), "port": plan.port, "regions": vaults}
        return {CONTROLLER: {**base, **rules, **own}}
    found: dict[str, dict[str, object]] = {}
    for region, port in zip(plan.regions, plan.region_ports, strict=True):
        own = {"state_dir": str(paths.controller_of(region)), "port": port, "above": plan.url}
        found[controller_name(region)] = {**base, **rules, **own, "regions": {region: vaults[region]}}
    urls = {region: plan.url_of(region) for region in plan.regions}
    found[CENTRE] = {**base, "state_dir": str(paths.centre), "port": plan.port, "regions": urls}
    return found


def controller_name(region: str) -> str:
    """The process name of a region's own controller."""
    return f"{CONTROLLER}-{region}"


def controller_names(plan: FleetPlan) -> list[str]:
    """The process names of all controllers, the global one last."""
    return [*map(controller_name, plan.regions), CENTRE] if plan.federated else [CONTROLLER]


def agent_config(paths: StatePaths, node: NodePlan) -> Path:
    """In the node's own folder: nothing else of the state folder is visible inside."""
    return paths.node(node.name) / "agent.json"


def controller_argv(paths: StatePaths, name: str) -> list[str]:
    """A controller's command."""
    program = "midstep.app.centre" if name == CENTRE else "midstep.app.controller"
    return [sys.executable, "-m", program, "--config", str(paths.config(name))]


def agent_argv(holder: Identity) -> list[str]:
    """An agent's command: the node's namespaces are entered first."""
    program = [sys.executable, "-m", "midstep.app.agent", "--config", str(INSIDE_NODE / "agent.json")]
    return [*enter_command(holder), *program]


def service_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What our processes get of the environment of whoever typed `up`: jobs must not depend on it."""
    kept = {k: v for k, v in environ.items() if k in _KEPT or k.startswith(("LC_", "MIDSTEP_", *_BUCKETS))}
    source = str(Path(midstep.__path__[0]).parent)
    inherited = [p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p and p != source]
    return {**kept, "PYTHONPATH": os.pathsep.join([source, *inherited]), "PYTHONUNBUFFERED": "1"}


def write_private(path: Path, content: object) -> None:
    """Write JSON, whole or not at all, readable by its owner alone."""
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def _agent(plan: FleetPlan, node: NodePlan, token: str, criu: Path | None) -> dict[str, object]:
    return {
        "name": node.name,
        "region": node.region,
        "address": node.address,
        "devices": [asdict(d) for d in node.devices],
        "controller": plan.url_of(node.region),
        "token": token,
        "state_dir": str(INSIDE_NODE),
        "vault_dir": str(INSIDE_VAULT),
        "inject": str(Path(midstep.__path__[0]) / "runtime" / "inject"),
        "criu": str(criu) if criu else None,
        "passthrough": [],
        "spot": node.spot,
    }


def _token(paths: StatePaths) -> str:
    try:
        return str(json.loads(paths.client.read_text())["token"])
    except (OSError, ValueError, KeyError):
        return real_ids().token()
