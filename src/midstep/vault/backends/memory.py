"""Objects in this process's memory: for tests and for what need not outlive the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from midstep.vault.backends.base import Buffer, ObjectInfo, check_folder, check_name, end_of
from midstep.vault.errors import ObjectExists, ObjectMissing


class MemoryBackend:
    """Obeys the contract as long as the process lives."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Buffer) -> None:
        content = bytes(data)
        with self._lock:
            self._objects[check_name(name)] = content

    def create(self, name: str, data: Buffer) -> None:
        content = bytes(data)
        with self._lock:
            if check_name(name) in self._objects:
                raise ObjectExists(f"object {name} exists already in {self.describe()}")
            self._objects[name] = content

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        content = self._find(name)
        return content[start : end_of(name, start, length, len(content))]

    def size(self, name: str) -> int:
        return len(self._find(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = check_folder(prefix)
        with self._lock:
            found = [ObjectInfo(name, len(data)) for name, data in self._objects.items()]
        return iter(sorted(info for info in found if info.name.startswith(folder)))

    def delete(self, name: str) -> None:
        with self._lock:
            self._objects.pop(check_name(name), None)

    def describe(self) -> str:
        return "memory"

    def _find(self, name: str) -> bytes:
        with self._lock:
            content = self._objects.get(check_name(name))
        if content is None:
            raise ObjectMissing(f"there is no object {name} in {self.describe()}")
        return content
