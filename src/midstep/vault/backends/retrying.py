"""A backend that tries again what found no answer: a decorator over any other.

Only BackendUnreachable is tried again; every other error says that trying again would not help. The waits
double, with jitter, so that many agents do not come back at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from midstep.env import BlockingClock, RealClock, real_chance
from midstep.vault.backends.base import Backend, Buffer, ObjectInfo, as_bytes
from midstep.vault.errors import BackendUnreachable, ObjectExists, ObjectMissing

Result = TypeVar("Result")


class Retrying:
    """At most ``tries`` tries, none begun later than ``patience_s`` after the first."""

    def __init__(
        self,
        inner: Backend,
        *,
        clock: BlockingClock | None = None,
        chance: random.Random | None = None,
        tries: int = 8,
        patience_s: float = 300.0,
        first_s: float = 0.2,
        longest_s: float = 20.0,
    ) -> None:
        self._inner = inner
        self.forks: bool = getattr(inner, "forks", False)
        self._clock = clock or RealClock()
        self._chance = chance or real_chance()
        self._tries, self._patience_s = tries, patience_s
        self._first_s, self._longest_s = first_s, longest_s

    def put(self, name: str, data: Buffer) -> None:
        self._insist(lambda: self._inner.put(name, data))

    def create(self, name: str, data: Buffer) -> None:
        unsure = False

        def once() -> None:
            nonlocal unsure
            try:
                self._inner.create(name, data)
            except BackendUnreachable:
                unsure = True  # it may have arrived, and only the answer not
                raise
            except ObjectExists:
                if not unsure or not self._is_ours(name, data):
                    raise

        self._insist(once)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self._insist(lambda: self._inner.get(name, start, length))

    def size(self, name: str) -> int:
        return self._insist(lambda: self._inner.size(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._insist(lambda: [*self._inner.list(prefix)]))

    def delete(self, name: str) -> None:
        self._insist(lambda: self._inner.delete(name))

    def describe(self) -> str:
        return self._inner.describe()

    def _is_ours(self, name: str, data: Buffer) -> bool:
        try:
            return self._inner.get(name) == bytes(as_bytes(data))
        except ObjectMissing:  # gone again: somebody else had it
            return False

    def _insist(self, action: Callable[[], Result]) -> Result:
        began_s = self._clock.monotonic_s()
        for tried in range(1, self._tries + 1):
            try:
                return action()
            except BackendUnreachable as error:
                wait_s = self._wait_s(tried)
                passed_s = self._clock.monotonic_s() - began_s
                if tried == self._tries or passed_s + wait_s > self._patience_s:
                    raise BackendUnreachable(f"{error} (tried {tried} times in {passed_s:.1f} s)") from error
            self._clock.block(wait_s)
        raise AssertionError("a backend is tried at least once")

    def _wait_s(self, tried: int) -> float:
        return min(self._longest_s, self._first_s * 2 ** (tried - 1)) * self._chance.uniform(0.5, 1.0)
