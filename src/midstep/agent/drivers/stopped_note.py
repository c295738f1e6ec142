"""Which processes the job itself had stopped before a freeze: a note in the rank's cell (CELL/run) that
outlives the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from midstep.agent.drivers.cell import home_seen_by
from midstep.agent.drivers.follow import RankProcess


def write(p: RankProcess, inner_pids: Iterable[int]) -> None:
    """By the rank's own numbers. Best effort: on a full disk only the memory of an agent that dies just now
    is lost.
    """
    with contextlib.suppress(OSError):
        fd = os.open(_path(p), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(sorted(inner_pids), file)


def read(p: RankProcess) -> set[int]:
    try:
        return set(cast("list[int]", json.loads(_path(p).read_text())))
    except (OSError, ValueError):
        return set()


def remove(p: RankProcess) -> None:
    with contextlib.suppress(OSError):
        _path(p).unlink()


def _path(p: RankProcess) -> Path:
    return home_seen_by(p.init_pid) / "run" / f"stopped-{p.rank}"
