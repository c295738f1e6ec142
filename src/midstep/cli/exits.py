"""Exit codes, and the one place where errors become words. docs/exit-codes.md is for users."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

DEBUG = "MIDSTEP_DEBUG"


class Exit(enum.IntEnum):
    """Stable: scripts depend on them."""

    OK = 0
    JOB_FAILED = 1  # `run --follow` exits with the job's own code instead
    USAGE = 2  # the command line, the job file, the work directory
    NO_FLEET = 3
    NOT_FOUND = 4
    CONFLICT = 5
    REFUSED = 6
    TIMEOUT = 7
    MACHINE = 8  # this machine, or this user on it, cannot do that
    FLEET_FAULT = 9
    DAMAGED = 10  # the vault holds bytes that are not those that were written
    BUG = 70
    INTERRUPTED = 130


class UsageError(Exception):
    """What the user typed or wrote cannot be meant so."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


# By name: importing the classes would load an HTTP client for `--help`.
_CODES = {
    "UsageError": Exit.USAGE,
    "LocalProblem": Exit.USAGE,
    "Stuck": Exit.BUG,
    "SimError": Exit.USAGE,
    "NoFleet": Exit.NO_FLEET,
    "NotFound": Exit.NOT_FOUND,
    "Conflict": Exit.CONFLICT,
    "FleetConflict": Exit.CONFLICT,
    "NotAStateFolder": Exit.CONFLICT,
    "Refused": Exit.REFUSED,
    "NotAllowed": Exit.REFUSED,
    "WaitTimeout": Exit.TIMEOUT,
    "StartTimeout": Exit.TIMEOUT,
    "NotPermitted": Exit.MACHINE,
    "SubstrateError": Exit.MACHINE,
    "FleetFault": Exit.FLEET_FAULT,
    "SnapshotMissing": Exit.NOT_FOUND,
    "Damaged": Exit.DAMAGED,
    "ObjectDamaged": Exit.DAMAGED,
    "Busy": Exit.CONFLICT,
    "Fenced": Exit.CONFLICT,
    "LeaseLost": Exit.CONFLICT,
    "FormatUnknown": Exit.REFUSED,
    "WrongKey": Exit.REFUSED,
    "BackendDenied": Exit.REFUSED,
    "BackendError": Exit.MACHINE,
    "VaultError": Exit.NOT_FOUND,
}


def guarded(work: Callable[[], int | None]) -> NoReturn:
    """Run it and exit. No traceback reaches the user unless MIDSTEP_DEBUG is set."""
    try:
        sys.exit(work() or 0)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        sys.exit(report(error))


def report(error: Exception) -> Exit:
    """Say what went wrong on standard error; answers the exit code."""
    code = next((_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CODES), Exit.BUG)
    message, hint = str(error) or type(error).__name__, getattr(error, "hint", "")
    if code is Exit.BUG:
        message = f"unexpected: {type(error).__name__}: {message}"
        hint = f"this is a fault of Midstep's; {DEBUG}=1 shows where"
    if wants_json():
        content = {
            "error": message,
            "hint": hint,
            "code": getattr(error, "code", type(error).__name__),
            "exit": code,
        }
        print(json.dumps(content), file=sys.stderr)
    else:
        print(f"midstep: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
    return code


def wants_json() -> bool:
    """--json was given (before any ``--``)."""
    words = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    return "--json" in words
