"""Names for new things, from a random source that is given: a seeded one makes the same names again."""

from __future__ import annotations

import random
from collections.abc import Container

JOB_DIGITS, SNAPSHOT_DIGITS, TOKEN_DIGITS = 6, 12, 32


class Ids:
    """Of jobs (`j-7f3a2c`: short to type), snapshots (`s-0b91d64e5a7c`) and requests (32 hex digits)."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def job(self, taken: Container[str] = ()) -> str:
        """Not one of `taken`: six digits meet again after some thousand jobs."""
        return self._fresh("j-", JOB_DIGITS, taken)

    def snapshot(self, taken: Container[str] = ()) -> str:
        return self._fresh("s-", SNAPSHOT_DIGITS, taken)

    def token(self) -> str:
        """Unique without asking anybody; from `real_ids` also impossible to guess."""
        return self._fresh("", TOKEN_DIGITS, ())

    def _fresh(self, prefix: str, digits: int, taken: Container[str]) -> str:
        while (name := f"{prefix}{self._chance.getrandbits(4 * digits):0{digits}x}") in taken:
            pass
        return name


def real_ids() -> Ids:
    """From the kernel's random source."""
    return Ids(real_chance())


def real_chance() -> random.Random:
    """The kernel's random source."""
    return random.SystemRandom()
