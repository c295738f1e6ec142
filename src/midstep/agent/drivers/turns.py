"""Let what needs the same names go one after the other, and the rest at once."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Turns:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def take(self, names: frozenset[str]) -> Generator[None, None, None]:
        """Hold all of `names`; waits while somebody else holds one of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken.isdisjoint(names))
            self._taken |= names
        try:
            yield
        finally:
            with self._changed:
                self._taken -= names
                self._changed.notify_all()
