"""What the backends' tests share."""

from __future__ import annotations

import random

from midstep.env import Ids
from midstep.vault.backends.base import Backend
from midstep.vault.backends.retrying import Retrying

KEY = bytes(range(32))


class JumpingClock:
    """Waits take no time; what was waited is noted."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.waits_s: list[float] = []

    def monotonic_s(self) -> float:
        return self.passed_s

    def block(self, duration_s: float) -> None:
        self.waits_s.append(duration_s)
        self.passed_s += duration_s


def chance(seed: int = 7) -> random.Random:
    return random.Random(seed)


def ids(seed: int = 7) -> Ids:
    return Ids(chance(seed))


def retrying(inner: Backend, tries: int = 8, patience_s: float = 300.0) -> Retrying:
    return Retrying(inner, clock=JumpingClock(), chance=chance(), tries=tries, patience_s=patience_s)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
