"""What an agent that was killed may have left running without a record: ranks started an instant before, and
CRIU.

A rank is known by its home, which its mounts show, and by the exit file that its PID 1 was given as an
argument; CRIU by the folder of images that it holds open.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from midstep.agent.drivers.cell import CELL, home_seen_by
from midstep.agent.drivers.errors import RankGone
from midstep.agent.drivers.launch import RankProcess, process_at

_EXIT_FILE = f"{CELL}/run/exit-"
_POLL_S = 0.05


def find_orphans(homes: Sequence[Path], known: Iterable[RankProcess] = ()) -> list[RankProcess]:
    """The PID 1s of ranks that live in one of these homes and are not known."""
    pids = {p.init_pid for p in known}
    found: list[RankProcess] = []
    for pid in _pids():
        rank = _rank_of(pid)
        if (
            rank is None
            or pid in pids
            or not any(_same(home_seen_by(pid) / "run", home / "run") for home in homes)
        ):
            continue
        try:
            found.append(process_at(rank, pid))
        except RankGone:
            continue
    return found


def await_criu(folders: Sequence[Path], deadline_s: float, dumped: Collection[int] = ()) -> None:
    """Wait until no CRIU works on these folders of images any more, or on these PIDs 1 of ranks; one that
    does not end is killed. One that was killed in the middle of a dump takes its code out of the rank by
    itself."""
    end_s = time.monotonic() + deadline_s
    while pids := [pid for pid in _pids() if _works_on(pid, folders, dumped)]:
        if time.monotonic() > end_s:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(_POLL_S)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _rank_of(pid: int) -> int | None:
    """The rank that this process is PID 1 of; None: it is something else."""
    words = _words(pid)
    exit_file = next((w for w in words if w.startswith(_EXIT_FILE)), "")
    if not exit_file or not exit_file.removeprefix(_EXIT_FILE).isdigit():
        return None
    try:
        numbers = next(
            ln for ln in Path(f"/proc/{pid}/status").read_text().splitlines() if ln.startswith("NSpid:")
        )
    except (OSError, StopIteration):
        return None
    inner = numbers.split()[1:]
    return int(exit_file.removeprefix(_EXIT_FILE)) if len(inner) > 1 and inner[-1] == "1" else None


def _works_on(pid: int, folders: Sequence[Path], dumped: Collection[int]) -> bool:
    words = _words(pid)
    if "-D" not in words:
        return False
    if "-t" in words and words[words.index("-t") + 1] in map(str, dumped):
        return True
    images = words[words.index("-D") + 1].replace("/proc/self/", f"/proc/{pid}/")
    return any(_same(Path(images), folder) for folder in folders)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
