"""What the doctor says: rows of a table, as data. The command line draws them, `--json` prints them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    OK = "ok"
    WARN = "warn"  # works, with a limit that the row names
    BAD = "bad"  # something Midstep does is not possible here


class Mode(Enum):
    """How jobs on this machine can be suspended."""

    CRIU = "criu"
    FREEZE = "freeze in place"


@dataclass(frozen=True, slots=True)
class Finding:
    key: str  # stable, for scripts
    what: str
    found: str
    status: Status
    todo: str = ""  # what to do about it; empty when ok


@dataclass(frozen=True, slots=True)
class Tried:
    """A command that was run: whether it succeeded, and its last words."""

    ok: bool
    words: str


def attempt(command: Sequence[str], timeout_s: float = 30.0) -> Tried:
    """Run it for its outcome; never raises."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
    except FileNotFoundError:
        return Tried(False, f"{command[0]} is not installed")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Tried(False, str(error))
    if done.returncode == 0:
        return Tried(True, done.stdout.strip())
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return Tried(False, lines[-1] if lines else f"exit status {done.returncode}")
