"""Which launcher a command begins with, if any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from midstep.model.launch.accelerate import unwrap_accelerate
from midstep.model.launch.base import AccelerateConfig, Launch, LaunchError
from midstep.model.launch.torchrun import unwrap_torchrun


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
    program, *rest = command
    name = PurePosixPath(program).name
    if name == "torchrun":
        return unwrap_torchrun(_python_beside(program), rest, legacy=False)
    if name == "accelerate" and rest[:1] == ["launch"]:
        return unwrap_accelerate(_python_beside(program), rest[1:], read_config)
    module = _module_at(command)
    if module is not None:
        python, module_name, arguments = module
        if module_name in ("torch.distributed.run", "torch.distributed.launch"):
            return unwrap_torchrun(python, arguments, legacy=module_name.endswith("launch"))
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
