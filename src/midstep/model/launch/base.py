"""What launchers have in common: what they come to, how they are read, what cannot be carried over."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


def plain_command(
    python: str, script: str, arguments: list[str], module: bool, no_python: bool
) -> tuple[str, ...]:
    """What a launcher runs in each process."""
    if no_python and module:
        raise LaunchError("--no-python and --module exclude each other")
    if no_python:
        return (script, *arguments)
    return (python, "-u", *(["-m"] if module else []), script, *arguments)


def positive(option: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise LaunchError(f"{option} {text!r}: a number of at least 1 is needed")
    return int(text)


def _spellings(name: str) -> list[str]:
    short = {"redirects": ["-r"], "tee": ["-t"]}.get(name, [])
    return list(dict.fromkeys([*short, f"--{name}", f"--{name.replace('-', '_')}"]))
