"""`midstep up`: from nothing, from a stopped fleet, or from one whose supervisor was killed, to a fleet that
answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from midstep.agent.install.criu_find import find_criu
from midstep.app.local_down import down
from midstep.cli.exits import Exit
from midstep.cli.output import print_json, say
from midstep.client.errors import ClientError
from midstep.client.fleet import FleetClient
from midstep.client.types import NodeView
from midstep.model.job import CheckpointRule
from midstep.substrate.errors import FleetConflict, StartTimeout
from midstep.substrate.local import network
from midstep.substrate.local.bringup import (
    check_machine,
    settle_plan,
    start_supervisor,
    state_lock,
    supervised,
    supervisor_argv,
)
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.plan import PLAN, FleetPlan, Shape
from midstep.substrate.local.processes import load
from midstep.substrate.local.services import (
    agent_name,
    controller_names,
    service_environment,
    write_configs,
    write_private,
)

POLL_S = 0.1
LAST_LINES = 6


def up(
    regions: int | None,
    nodes: int | None,
    devices: int | None,
    spot: int | None,
    federated: bool | None,
    name: str,
    cpu: bool,
    rule: dict[str, Any] | None,
    lost_node_s: float | None,
    rest_s: float | None,
    foreground: bool,
    timeout_s: float,
    state: Path | None,
    as_json: bool,
) -> int:
    """Answers the exit code. See `midstep up --help`."""
    paths = StatePaths.at(state)
    default = Shape()
    shape = Shape(
        regions or default.regions, nodes or default.nodes, devices or default.devices, spot or default.spot
    )
    given = (regions, nodes, devices, spot) != (None, None, None, None)
    criu = _criu()
    check_machine(paths, [criu] if criu else [])
    paths.root.mkdir(parents=True, exist_ok=True)
    with state_lock(paths):
        plan = settle_plan(paths, shape, name, given, federated, use_gpus=not cpu)
        plan = _settle_recovery(paths, plan, CheckpointRule(**rule) if rule else None, lost_node_s, rest_s)
        write_configs(paths, plan, criu)
        _say_what(plan, criu)
        process = _supervise_here(paths) if foreground else start_supervisor(paths)
    found = _wait_for_nodes(paths, plan, timeout_s)
    _say_done(paths, plan, found, as_json)
    return _stay(process, paths, as_json) if process is not None else Exit.OK


def _settle_recovery(
    paths: StatePaths,
    plan: FleetPlan,
    rule: CheckpointRule | None,
    lost_node_s: float | None,
    rest_s: float | None,
) -> FleetPlan:
    """What is given replaces what the fleet had; a controller that runs already keeps to that."""
    if rule is None and lost_node_s is None and rest_s is None:
        return plan
    after = replace(
        plan,
        checkpoints=rule or plan.checkpoints,
        lost_node_s=lost_node_s or plan.lost_node_s,
        rest_s=plan.rest_s if rest_s is None else rest_s,
    )
    if after != plan and supervised(paths):
        say("  the fleet runs already: its rules change when it is started again")
    write_private(paths.fleet, PLAN.dump_python(after, mode="json"))
    return after


def _supervise_here(paths: StatePaths) -> subprocess.Popen[bytes]:
    if supervised(paths):
        raise FleetConflict(
            f"the fleet in {paths.root} runs already", "`midstep down` first, or leave --foreground out"
        )
    return subprocess.Popen(supervisor_argv(paths), env=service_environment(os.environ), cwd="/")


def _criu() -> Path | None:
    info = find_criu()
    return info.path if info is not None and info.new_enough else None


def _say_what(plan: FleetPlan, criu: Path | None) -> None:
    say(f"fleet {plan.name}: {len(plan.nodes)} nodes on {plan.bridge}, {plan.subnet}")
    if plan.federated:
        say(f"  federated: a controller for each of {len(plan.regions)} regions, and a global one")
    if plan.overcommitted:
        cores = len({core for node in plan.nodes for device in node.devices for core in device.cpus})
        count = sum(len(node.devices) for node in plan.nodes)
        say(f"  overcommitted: {count} devices share {cores} cores; jobs slow each other down")
    if not plan.nodes[0].devices[0].device_type.startswith("cpu-"):
        say("  GPUs: every node lists all of them. Not tried on GPUs yet; --cpu leaves them out")
    if criu is None:
        say("  no CRIU 4.1+: jobs are frozen in place and cannot move; `midstep doctor --fix` installs it")
    if network.bridge_is_filtered():
        say(f"  the firewall filters bridges: if nodes do not reach each other, allow {plan.bridge}")


def _wait_for_nodes(paths: StatePaths, plan: FleetPlan, timeout_s: float) -> list[NodeView]:
    """Until every agent is connected. StartTimeout: with the last lines of those that are not there."""
    deadline = time.monotonic() + timeout_s
    said, found = -1, list[NodeView]()
    with FleetClient.of_state(paths.root, timeout_s=5.0) as fleet:
        while True:
            try:
                found = [n for n in fleet.nodes() if n.connected]
            except ClientError:
                found = []
            if len(found) != said:
                said = len(found)
                say(f"  {said} of {len(plan.nodes)} nodes connected")
            if {n.name for n in found} >= {n.name for n in plan.nodes}:
                return found
            if time.monotonic() > deadline:
                raise _timed_out(paths, plan, {n.name for n in found}, timeout_s)
            time.sleep(POLL_S)


def _timed_out(paths: StatePaths, plan: FleetPlan, there: set[str], timeout_s: float) -> StartTimeout:
    missing = [n.name for n in plan.nodes if n.name not in there]
    suspects = controller_names(plan) if len(missing) == len(plan.nodes) else []
    suspects += [agent_name(missing[0])]
    parts = [f"after {timeout_s:g} s these nodes are not connected: {', '.join(missing)}"]
    for name in suspects:
        runs = "runs" if load(paths.process(name)) else "does not run"
        parts.append(f"  {name} {runs}; the end of {paths.log(name)}:")
        parts += [f"    {line}" for line in _tail(paths.log(name))]
    return StartTimeout("\n".join(parts), "it is being tried further; `midstep down` ends that")


def _tail(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    except OSError:
        return ["(nothing)"]


def _say_done(paths: StatePaths, plan: FleetPlan, found: list[NodeView], as_json: bool) -> None:
    if as_json:
        print_json({"fleet": plan.name, "state": str(paths.root), "url": plan.url, "nodes": found})
        return
    for region in plan.regions:
        names = ", ".join(f"{n.name} ({len(n.devices)} x {n.devices[0].device_type})" for n in plan.nodes
                          if n.region == region)  # fmt: skip
        say(f"  {region}: {names}")
    default = StatePaths.at(None) == paths
    say(f"up. Next: midstep run{'' if default else f' --state {paths.root}'} -- COMMAND")


def _stay(process: subprocess.Popen[bytes], paths: StatePaths, as_json: bool) -> int:
    """In the foreground: until the supervisor ends or we are told to end, then take the fleet down."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        process.wait()
    except (KeyboardInterrupt, SystemExit):
        say("going down")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return down(now=False, purge=False, timeout_s=120.0, state=paths.root, as_json=as_json)


def _leave(*_: object) -> None:
    sys.exit(Exit.OK)
