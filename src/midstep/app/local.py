"""What `midstep up`, `down` and `doctor` become: ``python -m midstep.app.local VERB JSON``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from midstep.app.local_down import down
from midstep.app.local_up import up
from midstep.cli.exits import Exit, guarded
from midstep.cli.output import columns, print_json, print_table, say


def doctor(fix: bool, as_json: bool) -> int:
    """What this machine can do; with ``fix``, CRIU is installed first. Exit code 8: something is not possible
    here."""
    from midstep.agent.doctor import Status, examine
    from midstep.agent.doctor import fix as install
    from midstep.agent.install.criu_errors import CriuInstallError

    if fix:
        try:
            install(lambda line: say(f"  {line}"))
        except CriuInstallError as error:
            say(f"midstep: CRIU was not installed: {error}")
            return Exit.MACHINE
    rows = examine()
    if as_json:
        print_json([{**dataclasses.asdict(row), "status": row.status.value} for row in rows])
    else:
        heads = columns("Status", "What", "Found", "To do")
        print_table(heads, [(row.status.value, row.what, row.found, row.todo) for row in rows])
    return Exit.MACHINE if any(row.status is Status.BAD for row in rows) else Exit.OK


VERBS: dict[str, Callable[..., int]] = {"up": up, "down": down, "doctor": doctor}


def main() -> None:
    """Run a verb; exits with its code."""
    verb, chosen = sys.argv[1], _options(sys.argv[2])
    guarded(lambda: VERBS[verb](**chosen))


def _options(text: str) -> dict[str, Any]:
    chosen: dict[str, Any] = json.loads(text)
    if "state" in chosen:
        chosen["state"] = Path(chosen["state"]) if chosen["state"] else None
    return chosen


if __name__ == "__main__":
    main()
