"""How the memory that a repository may use is divided."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MEMORY_BYTES = 256 << 20
_LEAST = 32 << 20
_MIB = 1 << 20
_BLOCK = 2 * _MIB


@dataclass(frozen=True, slots=True)
class Budget:
    """All sizes in bytes. Packs being filled or written, with the copy that a backend may make of each, take
    half; blocks of files a quarter; the rest is for what lies between."""

    workers: int
    pack: int
    uploads: int  # packs written at a time
    block: int  # of a file: read at a time, by each worker
    fetch: int  # a read from the backend takes about so many
    held: int  # of new chunks that are looked at again, and of old ones; they come besides

    @classmethod
    def of(cls, workers: int | None, memory_bytes: int) -> Budget:
        """ValueError: less than 32 MiB."""
        if memory_bytes < _LEAST:
            raise ValueError(f"memory_bytes is {memory_bytes}; a repository needs {_LEAST} (32 MiB) at least")
        workers = max(1, workers or len(os.sched_getaffinity(0)))
        block = min(_BLOCK, memory_bytes // 32)
        return cls(
            min(workers, memory_bytes // 4 // block),
            pack=min(16 * _MIB, memory_bytes // 16),
            uploads=4,
            block=block,
            fetch=min(4 * _MIB, memory_bytes // 64),
            held=memory_bytes // 2,
        )


class Pool(Generic[T]):
    """Things that are lent and come back; whoever wants one more than there are waits."""

    def __init__(self, count: int, make: Callable[[], T]) -> None:
        self._make, self._left = make, count
        self._free: list[T] = []
        self._changed = threading.Condition()

    def take(self) -> T:
        """One of them, as it came back."""
        with self._changed:
            while not self._free and not self._left:
                self._changed.wait()
            if self._free:
                return self._free.pop()
            self._left -= 1
        return self._make()

    def give(self, thing: T) -> None:
        """It comes back."""
        with self._changed:
            self._free.append(thing)
            self._changed.notify()
