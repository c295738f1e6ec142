"""How a job's ranks are started: the environment of a rank, and commands that begin with a launcher.

Midstep starts the ranks itself, so ``torchrun ...`` and its relatives are unwrapped: what the launcher would
have started becomes the command of each rank, and its number of processes the job's world size.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NoReturn

AccelerateConfig = Callable[[str | None], Mapping[str, object]]
"""Reads an accelerate configuration file; None stands for the user's default file (empty if there is none).
"""


class LaunchError(ValueError):
    """The command begins with a launcher but cannot be unwrapped; the message says why and what to write
    instead.
    """


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command asks for once its launcher is taken off."""

    command: tuple[str, ...]
    world_size: int | None = None  # None: the launcher does not say; one rank for each device of the job
    ranks_per_node: int | None = None  # None: as many as the world
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    local_rank_at: int | None = None  # where torch.distributed.launch puts --local-rank=N for the script

    def rank_command(self, local_rank: int) -> tuple[str, ...]:
        """The command of one rank."""
        at = self.local_rank_at
        if at is None:
            return self.command
        return (*self.command[:at], f"--local-rank={local_rank}", *self.command[at:])


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Where a rank stands in its job. Fixed at submission: it never sees a move or a resize."""

    rank: int
    world_size: int
    ranks_per_node: int

    @property
    def node(self) -> int:
        """The number of the (nominal) node."""
        return self.rank // self.ranks_per_node

    @property
    def nodes(self) -> int:
        return -(-self.world_size // self.ranks_per_node)

    @property
    def local_rank(self) -> int:
        return self.rank % self.ranks_per_node

    @property
    def local_world_size(self) -> int:
        return min(self.ranks_per_node, self.world_size - self.node * self.ranks_per_node)


def rank_environment(place: RankPlace, run_id: str, master_port: int = 29500) -> dict[str, str]:
    """The variables that torchrun sets for a rank.

    The address is always ``localhost``: it names the job's meeting point and is never connected to.
    ``OMP_NUM_THREADS`` is a default that the job's own environment may override.
    """
    numbers = {
        "RANK": place.rank,
        "WORLD_SIZE": place.world_size,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_WORLD_SIZE": place.local_world_size,
        "GROUP_RANK": place.node,
        "GROUP_WORLD_SIZE": place.nodes,
        "ROLE_RANK": place.rank,
        "ROLE_WORLD_SIZE": place.world_size,
        "MASTER_PORT": master_port,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_MAX_RESTARTS": 0,
        "OMP_NUM_THREADS": 1,
    }
    names = {"ROLE_NAME": "default", "MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": run_id}
    return {**{name: str(number) for name, number in numbers.items()}, **names}


def no_config(path: str | None) -> Mapping[str, object]:
    """An accelerate configuration for a caller who has no files: only the absent default one."""
    if path is None:
        return {}
    raise LaunchError(f"accelerate's configuration file {path!r} cannot be read here")


def unwrap(command: Sequence[str], read_config: AccelerateConfig = no_config) -> Launch:
    """Take the launcher off a command; a command without one comes back as it is, with no world size.

    Raises LaunchError when there is a launcher whose arguments cannot be carried over.
    """
    if not command:
        raise LaunchError("the command is empty")
    from .accelerate import unwrap_accelerate  # it builds on this module

    program, *rest = command
    name = PurePosixPath(program).name
    if name == "torchrun":
        return _torchrun(_python_beside(program), rest, legacy=False)
    if name == "accelerate" and rest[:1] == ["launch"]:
        return unwrap_accelerate(_python_beside(program), rest[1:], read_config)
    module = _module_at(command)
    if module is not None:
        python, module_name, arguments = module
        if module_name in ("torch.distributed.run", "torch.distributed.launch"):
            return _torchrun(python, arguments, legacy=module_name.endswith("launch"))
        if module_name in ("accelerate.commands.launch", "accelerate.commands.accelerate_cli", "accelerate"):
            skip = 0 if module_name.endswith(".launch") else 1
            return unwrap_accelerate(python, arguments[skip:], read_config)
    return Launch(tuple(command))


def _module_at(command: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """For ``python [flags] -m MODULE ARGS``: the interpreter, the module and its arguments."""
    if not re.fullmatch(r"(python|pypy)[\d.]*", PurePosixPath(command[0]).name):
        return None
    for at, word in enumerate(command[1:], 1):
        if word == "-m" and at + 1 < len(command):
            return command[0], command[at + 1], list(command[at + 2 :])
        if not word.startswith("-"):
            return None
    return None


def _python_beside(launcher: str) -> str:
    """The interpreter that a launcher script belongs to."""
    path = PurePosixPath(launcher)
    return str(path.parent / "python3") if len(path.parts) > 1 else "python3"


class LauncherParser(argparse.ArgumentParser):
    """Options of a launcher, spelled with ``-`` or ``_``; a mistake is a LaunchError that names it."""

    def error(self, message: str) -> NoReturn:
        raise LaunchError(f"{self.prog}: {message} (or give the plain command and --devices)")

    def values(self, *names: str) -> None:
        for name in names:
            self.add_argument(*_spellings(name))

    def flags(self, *names: str) -> None:
        for name in names:
            self.add_argument(*_spellings(name), action="store_true")

    def script(self) -> None:
        self.add_argument("-m", "--module", action="store_true")
        self.add_argument("script")
        self.add_argument("script_arguments", nargs=argparse.REMAINDER)


def _spellings(name: str) -> list[str]:
    short = {"redirects": ["-r"], "tee": ["-t"]}.get(name, [])
    return list(dict.fromkeys([*short, f"--{name}", f"--{name.replace('-', '_')}"]))


_TORCHRUN_VALUES = [
    "nnodes",
    "nproc-per-node",
    "rdzv-backend",
    "rdzv-endpoint",
    "rdzv-id",
    "rdzv-conf",
    "max-restarts",
    "monitor-interval",
    "start-method",
    "event-log-handler",
    "role",
    "log-dir",
    "redirects",
    "tee",
    "local-ranks-filter",
    "node-rank",
    "master-addr",
    "master-port",
    "local-addr",
    "logs-specs",
    "numa-binding",
    "signals-to-handle",
    "duplicate-stdout-filters",
    "duplicate-stderr-filters",
    "shutdown-timeout",
]
_TORCHRUN_FLAGS = ("standalone", "no-python", "run-path", "virtual-local-rank", "use-env")


def _torchrun(python: str, arguments: list[str], legacy: bool) -> Launch:
    parser = LauncherParser(prog="torch.distributed.launch" if legacy else "torchrun", add_help=False)
    parser.values(*_TORCHRUN_VALUES)
    parser.flags(*_TORCHRUN_FLAGS)
    parser.script()
    asked = parser.parse_args(arguments)
    if asked.run_path:
        raise LaunchError("torchrun --run-path cannot be unwrapped: give the script itself")
    nodes = _fixed_nodes(asked.nnodes or "1")
    per_node = _processes(asked.nproc_per_node)
    command = plain_command(python, asked.script, asked.script_arguments, asked.module, asked.no_python)
    return Launch(
        command,
        world_size=None if per_node is None else nodes * per_node,
        ranks_per_node=per_node,
        local_rank_at=len(command) - len(asked.script_arguments) if legacy and not asked.use_env else None,
    )


def plain_command(
    python: str, script: str, arguments: list[str], module: bool, no_python: bool
) -> tuple[str, ...]:
    """What a launcher runs in each process."""
    if no_python and module:
        raise LaunchError("--no-python and --module exclude each other")
    if no_python:
        return (script, *arguments)
    return (python, "-u", *(["-m"] if module else []), script, *arguments)


def _fixed_nodes(text: str) -> int:
    """``--nnodes``: a number, or a range whose ends are equal."""
    least, _, most = text.partition(":")
    if most and most != least:
        raise LaunchError(
            f"--nnodes {text}: a job's world size never changes under Midstep; give one number "
            "(Midstep itself shrinks and grows the devices under it)"
        )
    return positive("--nnodes", least)


def _processes(text: str | None) -> int | None:
    if text is None:
        return 1
    return None if text in ("auto", "gpu", "cpu", "xpu") else positive("--nproc-per-node", text)


def positive(option: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise LaunchError(f"{option} {text!r}: a number of at least 1 is needed")
    return int(text)
