"""Folders that are not needed any more: out of the way at once, removed afterwards.

A rename takes microseconds and a tree of files may take seconds, so nobody who waits for a node to be free of
a job waits for its files. What an agent that was killed has left here, the next one removes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

_NICE = 10  # jobs come first
_log = logging.getLogger(__name__)


class Trash:
    """A folder on the same file system as what is thrown into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, path: Path) -> None:
        """Have ``path`` gone when this returns; harmless when it is not there. OSError: it still is there."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, Path(tempfile.mkdtemp(dir=self._folder)) / path.name)
        self.empty_soon()

    def empty_soon(self) -> None:
        """Remove what is here, beside everything else."""
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trash", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while self._news.wait():
            self._news.clear()
            for path in list(self._folder.glob("*")):
                try:
                    shutil.rmtree(path)
                except OSError as error:  # tried again with the next one, and by the next agent
                    _log.warning("%s is not removed yet: %s", path, error)
