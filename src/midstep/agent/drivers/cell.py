"""Cells: what a rank sees of its node.

A rank runs in a private copy of the node's mounts, with the job's home over it:

    home/        -> /run/midstep/cell      (work is the working folder; logs; run)
    home/tmp     -> /tmp                   (what must stay reachable below the real /tmp is bound through)
    home/shm     -> /dev/shm               (a tmpfs, if the node lets us mount one)

so every path of a job's own files is the same on every node, and the home is all that must be carried. CRIU
runs inside the same mount namespace as the rank; so it never has to describe one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.drivers import kernel
from midstep.agent.drivers.errors import NoRights

CELL = Path("/run/midstep/cell")
FOLDERS = ("work", "tmp", "shm", "logs", "run")
_PUBLIC = ("tmp", "shm")


@dataclass(frozen=True, slots=True)
class Home:
    """One virtual host of a job on this node: what all its ranks here share and what travels with it."""

    path: Path

    def log(self, rank: int) -> Path:
        return self.path / "logs" / f"rank-{rank}.log"


def prepare_home(home: Home, uid: int, gid: int) -> None:
    """Make the folders of a home, owned by the job's user. What is there already stays: a restored tree is
    kept.
    """
    home.path.mkdir(parents=True, exist_ok=True)
    home.path.chmod(0o755)  # ours, not the user's: nothing in it can be exchanged for a link to elsewhere
    for name in FOLDERS:
        folder = home.path / name
        folder.mkdir(exist_ok=True)
        if name == "shm" and not os.path.ismount(folder):
            _mount_memory(folder)
        os.chown(folder, uid, gid)
        folder.chmod(0o1777 if name in _PUBLIC else 0o755)


def remove_home(home: Home) -> None:
    unmount_home(home)
    if home.path.exists():
        shutil.rmtree(home.path)


def unmount_home(home: Home) -> None:
    """Take off what `prepare_home` has mounted: what is left are plain files. Harmless without a home."""
    shm = home.path / "shm"
    while os.path.ismount(shm):
        kernel.unmount(str(shm))


def home_seen_by(init_pid: int) -> Path:
    """A rank's home as the rank itself has it: right even if the agent's own mounts have changed since."""
    return Path(f"/proc/{init_pid}/root{CELL}")


def passthrough_for(
    argv: Sequence[str], env: Mapping[str, str], extra: Iterable[Path] = ()
) -> tuple[str, ...]:
    """Children of the real /tmp that a rank needs: its program, PATH, PYTHONPATH, our package, `extra`
    (state folder, CRIU).
    """
    paths = [argv[0], sys.prefix, sys.executable, __file__, env.get("VIRTUAL_ENV", ""), *map(str, extra)]
    for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH"):
        paths += env.get(name, "").split(":")
    names = {
        _child_of_tmp(form)
        for path in paths
        for form in (path, os.path.realpath(path))
        if path.startswith("/")
    }
    return tuple(sorted(names - {""}))


def _child_of_tmp(path: str) -> str:
    parts = os.path.normpath(path).split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "tmp" else ""


def enter_new_cell(home: Home, passthrough: Sequence[str]) -> None:
    """Give the calling thread (see `kernel.apart`) the mount namespace of a new rank, and put it in the
    work folder.
    """
    CELL.mkdir(parents=True, exist_ok=True)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    through = [
        (name, os.open(f"/tmp/{name}", os.O_PATH)) for name in passthrough if os.path.lexists(f"/tmp/{name}")
    ]
    try:
        _bind(str(home.path), str(CELL))
        _bind(str(CELL / "shm"), "/dev/shm")
        _bind(str(CELL / "tmp"), "/tmp")
        for name, fd in through:
            _bind_child_of_tmp(name, fd)
    finally:
        for _, fd in through:
            os.close(fd)
    os.chdir(CELL / "work")


def _bind(source: str, target: str) -> None:
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _bind_child_of_tmp(name: str, fd: int) -> None:
    source, target = f"/proc/self/fd/{fd}", Path("/tmp") / name
    if os.path.isdir(source):
        target.mkdir(exist_ok=True)
    else:
        target.touch(exist_ok=True)
    _bind(source, str(target))


def _mount_memory(folder: Path) -> None:
    try:
        kernel.mount("midstep-shm", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    except (NoRights, OSError):
        return  # a plain folder does the same, slower
