"""Deadlines of operations that nobody waits for by name: DDP waits for their futures inside C++."""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict, Tuple

PERIOD_S = 0.5


class Watchdog:
    """Calls ``expired`` for what was not forgotten in its time; its thread runs only while there is
    something.
    """

    def __init__(self) -> None:
        self._entries: Dict[int, Tuple[float, object, Callable[[], None]]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, what: object, timeout_s: float, expired: Callable[[], None]) -> None:
        """Call ``expired`` after ``timeout_s`` seconds unless ``what`` is forgotten before."""
        self._entries[id(what)] = (time.monotonic() + timeout_s, what, expired)
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="midstep-deadlines", daemon=True)
                self._thread.start()

    def forget(self, what: object) -> None:
        self._entries.pop(id(what), None)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(PERIOD_S)
            now = time.monotonic()
            for key, (deadline, _, expired) in list(self._entries.items()):
                if deadline <= now:
                    self._entries.pop(key, None)
                    expired()
            if not self._entries:
                self._wake.clear()
                if self._entries:  # came between the look and the clearing
                    self._wake.set()
