"""`down`: end everything of one fleet. Works from what is found on the machine, so also after any kill -9,
and twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from midstep.substrate.errors import NotAStateFolder, SubstrateError
from midstep.substrate.local import network
from midstep.substrate.local.bringup import SUPERVISOR, read_plan
from midstep.substrate.local.nodes import inhabitants
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.processes import Identity, kill, load, stop, with_argument
from midstep.substrate.local.services import CENTRE, CONTROLLER

GRACE_S = 5.0
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of a fleet is on this machine. All empty: nothing."""

    processes: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.links or self.mounts)


@dataclass(slots=True)
class TornDown:
    """What `end_fleet` ended."""

    processes: int = 0
    links: list[str] = field(default_factory=list[str])


def end_fleet(paths: StatePaths, tell: Callable[[str], None]) -> TornDown:
    """End the supervisor first (it would restart the others), then agents and jobs, controller, holders,
    network. SubstrateError: something does not go away."""
    done = TornDown()
    services = _services(paths)
    done.processes += len(services)
    stop([i for name, i in services if name == SUPERVISOR], GRACE_S)
    tell("agents")
    stop([i for name, i in services if name.startswith("agent-")], GRACE_S)
    tell("jobs and nodes")
    done.processes += _empty_nodes(paths)
    tell("controller")
    stop([i for name, i in services if name.startswith((CONTROLLER, CENTRE))], GRACE_S)
    tell("network")
    done.links = network.remove_links(alias(paths))
    _unmount(paths)
    for path in paths.run.glob("*.pid"):
        path.unlink(missing_ok=True)
    left = leftovers(paths)
    if left:
        raise SubstrateError(
            f"something of the fleet does not go away: {left}", "run `midstep down` again; else reboot"
        )
    return done


def leftovers(paths: StatePaths) -> Leftovers:
    """Look for everything of this fleet on the machine."""
    processes = {i.identity.pid for i in inhabitants(paths)} | {i.pid for _, i in _services(paths)}
    return Leftovers(tuple(sorted(processes)), tuple(network.own_links(alias(paths))), tuple(_mounts(paths)))


def purge(paths: StatePaths) -> None:
    """Remove the state folder. NotAStateFolder: it is not a fleet's. SubstrateError: something cannot be
    removed."""
    if not paths.root.exists():
        return
    if read_plan(paths) is None and paths.strangers():
        raise NotAStateFolder(
            f"{paths.root} is not a fleet's state folder", "nothing was removed; check --state"
        )
    try:
        shutil.rmtree(paths.root)
    except OSError as error:
        raise SubstrateError(
            f"the state folder {paths.root} could not be removed: {error}",
            "unmount what is mounted in it, or remove it by hand",
        ) from error


def alias(paths: StatePaths) -> str:
    """The mark on this fleet's links."""
    return f"midstep:{paths.root}"


def _services(paths: StatePaths) -> list[tuple[str, Identity]]:
    """Our own processes: by their files, and by their command lines in case the files are lost."""
    found: dict[int, tuple[str, Identity]] = {}
    for path in sorted(paths.run.glob("*.pid")) if paths.run.is_dir() else []:
        identity = load(path)
        if identity is not None:
            found[identity.pid] = (path.stem, identity)
    configs = [(path.stem, path) for path in (*paths.run.glob("controller*.json"), paths.config(CENTRE))]
    for name, config in ((SUPERVISOR, paths.fleet), *configs):
        for identity in with_argument(str(config)):
            found.setdefault(identity.pid, (name, identity))
    return [found[pid] for pid in sorted(found)]


def _empty_nodes(paths: StatePaths) -> int:
    ended = 0
    for _ in range(ROUNDS):  # a process may fork while we look
        found = inhabitants(paths)
        if not found:
            return ended
        ended += len(found)
        kill(i.identity for i in found)
    return ended


def _mounts(paths: StatePaths) -> list[str]:
    """Those of the fleet. What an operator mounts as a vault, a node's folder or all of it is theirs."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    inside = [Path(p) for p in points if Path(p).is_relative_to(paths.root)]
    own = [p for p in inside if p.is_relative_to(paths.run) or len(p.relative_to(paths.root).parts) > 2]
    return [str(p) for p in own]


def _unmount(paths: StatePaths) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for point in sorted(_mounts(paths), key=len, reverse=True):
        libc.umount2(point.encode(), 2)  # MNT_DETACH: nothing of ours uses it any more
