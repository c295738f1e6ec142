"""How long a wait has lasted, for a process that may be frozen in it for hours. Standard library only."""

from __future__ import annotations

import time
from typing import Optional

from .futex import SLICE_S


class Patience:
    """What is left of a timeout. A slice counts as what it took, or little more than what was asked for when
    the process was frozen meanwhile: no absolute time is kept."""

    __slots__ = ("left_s", "_asked", "_from")

    def __init__(self, timeout_s: Optional[float]) -> None:
        self.left_s = timeout_s
        self._asked = 0.0
        self._from = 0.0

    def slice_s(self) -> float:
        """Begin a slice: at most this long."""
        self._asked = SLICE_S if self.left_s is None else min(SLICE_S, self.left_s)
        self._from = time.monotonic() if self.left_s is not None else 0.0
        return self._asked

    def over(self) -> bool:
        """End a slice; whether the timeout has passed."""
        if self.left_s is None:
            return False
        self.left_s -= min(max(0.0, time.monotonic() - self._from), self._asked + 0.05)
        return self.left_s <= 0
