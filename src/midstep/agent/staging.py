"""Parts of checkpoints that are made while the ranks stand still, and stored while they run on: files in
memory, and shadows of the ranks.

A part is held only by the agent: when it dies, or something else comes before the part is stored, the
checkpoint is given up, and the job has the one before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from midstep.agent.drivers import memory_fs
from midstep.agent.drivers.shadow import Shadow
from midstep.agent.drivers.trees import copy_tree
from midstep.vault.snapshots import Part, Snapshots

_SPARE = 2.0  # what is left beside a part must do for what the ranks ask for meanwhile
_NICE = 19
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """A part in memory. ``shadows``: by rank, whose pages are nowhere else."""

    target: str
    folder: Path
    part: Part
    shadows: dict[int, Shadow] = field(default_factory=dict[int, Shadow])

    def drop_shadows(self) -> None:
        """They are not needed any more."""
        for shadow in self.shadows.values():
            shadow.drop()


class Staging:
    """The memory that parts are made in; nothing is kept there for longer than it takes to store them."""

    def __init__(self) -> None:
        self._root: Path | None = None

    def folder(self, target: str, index: int, nbytes: int) -> Path | None:
        """A new folder for a part of about this size; None: there is no room, or no such memory."""
        if memory_fs.free_bytes() < _SPARE * nbytes:
            return None
        try:
            self._root = self._root or memory_fs.make()
            path = self._root / f"{target}-{index}"
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
        except OSError as error:
            _log.warning("parts of checkpoints go straight to the vault: %s", error)
            return None
        return path


def store(made: Made, vault: Snapshots, limit_s: float) -> int:
    """Bring a part into the vault, and free its memory; returns the bytes. OSError, VaultError, TooSlow."""
    folder, end = vault.stage(made.target), time.monotonic() + limit_s
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, _NICE)  # of this thread only: the ranks come first
    try:
        nbytes = sum(_write_pages(folder, rank, shadow, end) for rank, shadow in made.shadows.items())
        nbytes += copy_tree(made.folder, folder, end - time.monotonic()).bytes
        vault.put_part(made.target, made.part)
        return nbytes
    finally:
        discard(made)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, 0)


def _write_pages(folder: Path, rank: int, shadow: Shadow, end: float) -> int:
    """Of one rank, which has memory of its own again."""
    images = folder / f"rank-{rank}"
    images.mkdir(parents=True, exist_ok=True)
    try:
        return shadow.write(images, end)
    finally:
        shadow.drop()


def discard(made: Made) -> None:
    """It is not wanted any more."""
    made.drop_shadows()
    shutil.rmtree(made.folder, ignore_errors=True)
