"""`up`, as far as it does not need the fleet to answer: decide the plan, write it down, start the
supervisor."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import midstep
from midstep.substrate.errors import FleetConflict, NotAStateFolder, NotPermitted, SubstrateError
from midstep.substrate.local import devices, network
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.plan import FIRST_PORT, PLAN, FleetPlan, Shape, make_plan, readdress
from midstep.substrate.local.processes import identify, spawn
from midstep.substrate.local.services import service_environment, write_private

PROGRAMS = ("ip", "nsenter")
SUPERVISOR = "supervisor"


def check_machine(paths: StatePaths, program_paths: list[Path]) -> None:
    """NotPermitted: this user or machine cannot make virtual nodes. FleetConflict: the state folder would
    hide us."""
    if os.geteuid() != 0:
        raise NotPermitted(
            "virtual nodes need root (namespaces, network links, CRIU)", "run it as root or with sudo -E"
        )
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if missing:
        raise NotPermitted(
            f"this machine has no {' and no '.join(missing)}", "apt-get install iproute2 util-linux"
        )
    for needed in (Path(sys.prefix), Path(midstep.__path__[0]), *program_paths):
        if needed.resolve().is_relative_to(paths.root):
            hint = "choose another with --state: nodes do not see the state folder, and need that program"
            raise FleetConflict(f"the state folder {paths.root} holds {needed}", hint)


@contextmanager
def state_lock(paths: StatePaths) -> Generator[None]:
    """One `up` or `down` of a state folder at a time. FleetConflict: another is at work."""
    with paths.lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetConflict(
                f"another `up` or `down` of {paths.root} is at work", "wait for it to end"
            ) from None
        yield


def read_plan(paths: StatePaths) -> FleetPlan | None:
    """The plan of a state folder; None: there is no fleet in it."""
    try:
        return PLAN.validate_json(paths.fleet.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NotAStateFolder(
            f"{paths.fleet} cannot be read: {error}", "move it away, or use another --state"
        ) from error


def settle_plan(
    paths: StatePaths, shape: Shape, name: str, given: bool, federated: bool | None, use_gpus: bool
) -> FleetPlan:
    """The plan that is there, or a new one; its bridge is up afterwards. ``given``: the shape was asked for
    and must match, and so must ``federated``, if it is not None. FleetConflict: it does not, or the folder
    holds other things."""
    old = read_plan(paths)
    if old is None:
        paths.root.mkdir(parents=True, exist_ok=True)
        if strangers := paths.strangers():
            some = ", ".join(strangers[:3])
            hint = "name an empty folder with --state"
            raise FleetConflict(f"{paths.root} is not empty and not a fleet's ({some})", hint)
    elif given and old.shape != shape:
        raise FleetConflict(
            f"{paths.root} holds a fleet of {_describe(old.shape)}, not {_describe(shape)}",
            "without options it starts as it is; `midstep down --purge` removes it; --state makes another",
        )
    elif federated not in (None, old.federated):
        have = "a controller for each region" if old.federated else "one controller"
        raise FleetConflict(
            f"{paths.root} holds a fleet with {have}",
            "without --federated or --no-federated it starts as it is; --state makes another",
        )
    paths.make()
    with network.machine_lock():
        plan = _with_network(old or _new_plan(paths, shape, name, bool(federated), use_gpus))
        write_private(paths.fleet, PLAN.dump_python(plan, mode="json"))
    return plan


def start_supervisor(paths: StatePaths) -> None:
    """Start the supervisor unless one is at work. SubstrateError: it ended at once."""
    if supervised(paths):
        return
    env = service_environment(os.environ)
    process = spawn(supervisor_argv(paths), paths.process(SUPERVISOR), paths.log(SUPERVISOR), env)
    if identify(process.pid) is None:
        raise SubstrateError(f"the supervisor ended at once; see {paths.log(SUPERVISOR)}")


def supervisor_argv(paths: StatePaths) -> list[str]:
    """The supervisor's command."""
    return [sys.executable, "-m", "midstep.app.supervisor", "--config", str(paths.fleet)]


def supervised(paths: StatePaths) -> bool:
    """A supervisor holds its lock."""
    try:
        with paths.supervisor_lock().open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _new_plan(paths: StatePaths, shape: Shape, name: str, federated: bool, use_gpus: bool) -> FleetPlan:
    cpus = devices.usable_cpus()
    gpus = devices.gpu_devices(cpus) if use_gpus else ()
    count = shape.regions * shape.nodes * shape.devices
    groups, shared = (gpus, True) if gpus else devices.cpu_devices(count, cpus)
    return make_plan(name, paths.root, shape, groups, shared, federated)


def _with_network(plan: FleetPlan) -> FleetPlan:
    if plan.port and plan.bridge in network.own_links(plan.alias):
        return plan
    network.remove_links(plan.alias)
    plan = readdress(plan, network.free_subnet(plan.subnet), plan.port)
    network.make_bridge(plan)
    plan = readdress(plan, plan.subnet, network.free_port(plan.host, plan.port or FIRST_PORT))
    if not plan.federated:
        return plan
    ports: list[int] = []
    for _ in plan.regions:
        ports.append(network.free_port(plan.host, (ports or [plan.port])[-1] + 1))
    return replace(plan, region_ports=tuple(ports))


def _describe(shape: Shape) -> str:
    spot = f", {shape.spot} spot nodes in each region" if shape.spot else ""
    return f"{shape.regions} regions x {shape.nodes} nodes x {shape.devices} devices{spot}"
