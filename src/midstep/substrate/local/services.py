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
    vaults = {region: str(paths.vault(region)) for region in plan.regions}
    controller: dict[str, object] = {
        "state_dir": str(paths.controller),
        "fleet": plan.name,
        "token": token,
        "host": plan.host,
        "port": plan.port,
        "regions": vaults,
    }
    if plan.checkpoints is not None:
        controller["checkpoints"] = asdict(plan.checkpoints)
    if plan.lost_node_s is not None:
        controller["lost_node_s"] = plan.lost_node_s
    if plan.rest_s is not None:
        controller["rest_s"] = plan.rest_s
    write_private(paths.config(CONTROLLER), controller)
    for node in plan.nodes:
        paths.node(node.name).mkdir(exist_ok=True)
        write_private(agent_config(paths, node), _agent(plan, node, token, criu))


def agent_config(paths: StatePaths, node: NodePlan) -> Path:
    """In the node's own folder: nothing else of the state folder is visible inside."""
    return paths.node(node.name) / "agent.json"


def controller_argv(paths: StatePaths) -> list[str]:
    """The controller's command."""
    return [sys.executable, "-m", "midstep.app.controller", "--config", str(paths.config(CONTROLLER))]


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
        "controller": plan.url,
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
