"""What a job's command and environment are made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from midstep.cli.exits import UsageError

# What decides which programs a job finds and how it reads text. Everything else stays here: tokens, sockets,
# displays.
CAPTURED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")


def full_command(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """A .py file runs under the `python` on PATH; anything else as it is. UsageError: nothing, or no
    python."""
    if not words:
        raise UsageError("there is no command", "midstep run -- python train.py")
    runs_itself = "/" in words[0] and os.access(words[0], os.X_OK)
    if runs_itself or not words[0].endswith(".py"):
        return tuple(words)
    for python in ("python", "python3"):
        if shutil.which(python, path=environ.get("PATH")):
            return (python, *words)
    raise UsageError(
        f"no python on PATH to run {words[0]}", "name the interpreter: midstep run -- /path/to/python ..."
    )


def environment(pairs: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The job's: what is captured of ours, then each ``K=V``, or ``K`` for our own value. UsageError: not
    like that."""
    taken = {k: v for k, v in environ.items() if k in CAPTURED or k.startswith("LC_")}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or "\0" in pair:
            raise UsageError(f"--env {pair!r}: expected NAME=VALUE or NAME")
        if not equals and name not in environ:
            raise UsageError(
                f"--env {name}: there is no such variable here", f"give it a value: --env {name}=..."
            )
        taken[name] = value if equals else environ[name]
    return taken
