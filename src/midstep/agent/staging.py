"""Parts of checkpoints that are made while the ranks stand still, and stored while they run on: files in
memory, and the ranks' pages.

A part is held only by the agent: when it dies, or something else comes before the part is stored, the
checkpoint is given up, and the job has the one before.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from midstep.agent.drivers import kernel, memory_fs
from midstep.agent.drivers.buffers import Buffers, Copied
from midstep.agent.drivers.errors import TooSlow
from midstep.agent.drivers.pages import Pages
from midstep.agent.drivers.shadow import Shadow
from midstep.agent.drivers.trees import copy_tree
from midstep.vault.archive.priority import be_modest, hasten
from midstep.vault.snapshots import Part, Snapshots
from midstep.vault.store.child import Child, Killed

_COPIED = 2.0  # what is left beside a part must do for what the ranks ask for meanwhile
_LEAST = 0.5  # of what the ranks have: what they write meanwhile
PATIENCE_S = 2.0  # that storing takes only what ranks leave: those that leave nothing are saved, too
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """A part in memory. ``pages``: by rank."""

    target: str
    folder: Path
    part: Part
    pages: dict[int, Pages]


class Staging:
    """The memory that parts are made in."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._buffers = Buffers()

    def begin(self, target: str, index: int, sizes: dict[int, int], others: int) -> Made | None:
        """Get ready for a part: about so many bytes of each rank, and others. None: there is no room, or no
        such memory."""
        free, nbytes = memory_fs.free_bytes(), sum(sizes.values())
        if free < _LEAST * nbytes + _COPIED * others:
            return None
        try:
            self._root = self._root or memory_fs.make()
            path = self._root / f"{target}-{index}"
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
        except OSError as error:
            _log.warning("parts of checkpoints go straight to the vault: %s", error)
            return None
        pages: dict[int, Pages] = {}
        for rank, size in sizes.items():
            pages[rank] = Copied(self._buffers, size) if free >= _COPIED * (nbytes + others) else Shadow()
        return Made(target, path, Part(index, (), (), 0, {}), pages)


def store(made: Made, vault: Snapshots, limit_s: float) -> tuple[int, float]:
    """Bring a part into the vault, and free its memory; returns the bytes, and seconds of a processor that it
    took. OSError, VaultError, TooSlow."""
    folder = vault.stage(made.target)
    descriptors = [fd for pages in made.pages.values() for fd in pages.descriptors]
    nbytes, cpu_s = 0, 0.0
    try:
        child = Child(partial(_written, made, folder, time.monotonic() + limit_s), descriptors)
        haste = threading.Timer(PATIENCE_S, hasten, (child.pid,))
        haste.start()
        try:
            while (said := child.hear()) is not None:
                rank, count, cpu_s = said
                nbytes += count
                if rank >= 0:
                    made.pages[rank].drop()  # of a shadow: it has memory of its own again
                elif count < 0:
                    raise TooSlow(f"a checkpoint was not stored within {limit_s:.0f} s")
        except Killed:
            raise OSError("what stored the checkpoint was killed") from None
        finally:
            haste.cancel()
            child.end()
        vault.put_part(made.target, made.part)
        return nbytes, cpu_s
    finally:
        discard(made)


def _written(made: Made, folder: Path, end: float) -> Iterator[tuple[int, int, float]]:
    """In a child, which at first takes what the ranks leave of the processor: (a rank, or -1 for the rest;
    bytes, or -1 when it takes too long; its processor time so far)."""
    kernel.end_with_parent()
    be_modest()
    try:
        for rank, pages in made.pages.items():
            images = folder / f"rank-{rank}"
            images.mkdir(parents=True, exist_ok=True)
            yield rank, pages.write(images, end), time.process_time()
        yield -1, copy_tree(made.folder, folder, end - time.monotonic()).bytes, time.process_time()
    except TooSlow:
        yield -1, -1, time.process_time()


def discard(made: Made) -> None:
    """It is not wanted any more."""
    for pages in made.pages.values():
        pages.drop()
    shutil.rmtree(made.folder, ignore_errors=True)
