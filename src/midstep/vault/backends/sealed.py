"""A backend whose objects are encrypted: a decorator over any other. The format is seal.py's; names stay
readable.

The object `sealed.json` says that a vault is encrypted, and with which key, so that a missing or another key
is told at opening, not by a damaged object later. It is made when an empty vault is opened with a key.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from midstep.env import Ids, real_ids
from midstep.vault.backends.base import Backend, Buffer, ObjectInfo, end_of
from midstep.vault.backends.seal import FORMAT, HEADER_BYTES, Cipher, Seal, plain_size, read_header
from midstep.vault.errors import (
    FormatUnknown,
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    ObjectTorn,
    WrongKey,
)

MARKER = "sealed.json"
_SEALS_KEPT = 4096  # headers remembered, so that the next read of a range is one request: some 500 KiB
_TRIES = 3  # a range needs the header, then its segments; somebody may replace the object in between


def open_sealed(inner: Backend, key: bytes | None, ids: Ids | None = None) -> Backend:
    """The backend through its encryption, if it has one. WrongKey; FormatUnknown."""
    marker = _marker(inner)
    if key is None:
        if marker is None:
            return inner
        raise WrongKey(
            f"the vault {inner.describe()} is encrypted with key {marker} and no key was given: name its "
            f"key file "
            "(MIDSTEP_VAULT_KEY_FILE=FILE)"
        )
    sealed = Sealed(inner, key, ids)
    if marker is None:
        marker = _mark(inner, sealed.key_id)
    if marker != sealed.key_id:
        raise WrongKey(
            f"the vault {inner.describe()} is encrypted with key {marker}, and the key given is "
            f"{sealed.key_id}: "
            "give the vault's own key. Without it nothing in it can be read"
        )
    return sealed


class Sealed:
    """Encrypts what is put and decrypts what is got. Open with `open_sealed`, which checks the key first."""

    def __init__(self, inner: Backend, key: bytes, ids: Ids | None = None) -> None:
        self._inner = inner
        self._cipher = Cipher(key)
        self._ids = ids or real_ids()
        self._seals: OrderedDict[str, Seal] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def key_id(self) -> str:
        """16 hex digits that tell keys apart and give nothing away."""
        return self._cipher.key_id.hex()

    def put(self, name: str, data: Buffer) -> None:
        self._inner.put(_free(name), self._seal(name, data))
        self._forget(name)

    def create(self, name: str, data: Buffer) -> None:
        self._inner.create(_free(name), self._seal(name, data))
        self._forget(name)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if start == 0 and length is None:
            return self._get_whole(name)
        seal = self._remembered(name) or self._read_seal(name)
        for _ in range(_TRIES):
            try:
                return self._get_range(name, seal, start, length)
            except (ObjectTorn, ObjectDamaged):
                newer = self._read_seal(name)
                if newer == seal:
                    raise
                seal = newer
        whole = self._get_whole(name)  # replaced again and again: one request sees one version
        return whole[start : end_of(name, start, length, len(whole))]

    def size(self, name: str) -> int:
        return plain_size(self._inner.size(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in self._inner.list(prefix):
            if info.name != MARKER:
                yield ObjectInfo(info.name, plain_size(info.size))

    def delete(self, name: str) -> None:
        self._inner.delete(_free(name))
        self._forget(name)

    def describe(self) -> str:
        return f"{self._inner.describe()} (encrypted)"

    def _seal(self, name: str, data: Buffer) -> bytes:
        with self._lock:
            salt = bytes.fromhex(self._ids.token())
        return self._cipher.seal(name, data, salt)

    def _get_whole(self, name: str) -> bytes:
        raw = self._inner.get(name)
        seal = read_header(raw, name)
        self._remember(name, seal)
        if len(raw) < seal.sealed_bytes:  # what is too long does not decrypt
            raise ObjectTorn(f"object {name} has {len(raw)} bytes of {seal.sealed_bytes}: it was cut short")
        return self._cipher.open(name, seal, 0, seal.plain_bytes, memoryview(raw)[HEADER_BYTES:])

    def _get_range(self, name: str, seal: Seal, start: int, length: int | None) -> bytes:
        end = end_of(name, start, length, seal.plain_bytes)
        if end == start:  # at the very end there is no segment to read
            return b""
        return self._cipher.open(name, seal, start, end, self._inner.get(name, *seal.body(start, end)))

    def _read_seal(self, name: str) -> Seal:
        try:
            seal = read_header(self._inner.get(name, 0, HEADER_BYTES), name)
        except ObjectTorn:
            seal = read_header(b"", name)
        self._remember(name, seal)
        return seal

    def _remembered(self, name: str) -> Seal | None:
        with self._lock:
            return self._seals.get(name)

    def _remember(self, name: str, seal: Seal) -> None:
        with self._lock:
            self._seals[name] = seal
            self._seals.move_to_end(name)
            if len(self._seals) > _SEALS_KEPT:
                self._seals.popitem(last=False)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._seals.pop(name, None)


def _free(name: str) -> str:
    if name == MARKER:
        raise ValueError(f"{MARKER} is the name of the vault's own mark of its encryption")
    return name


def _marker(inner: Backend) -> str | None:
    try:
        raw = inner.get(MARKER)
    except ObjectMissing:
        return None
    try:
        said: Any = json.loads(raw)
        version, key = int(said["format"]), str(said["key"])
    except (ValueError, KeyError, TypeError):
        raise ObjectDamaged(f"{MARKER} in {inner.describe()} cannot be read: put back its copy") from None
    if version != FORMAT:
        raise FormatUnknown(
            f"the vault {inner.describe()} is encrypted in format {version}; this Midstep reads format "
            f"{FORMAT}: "
            "use the version that wrote it"
        )
    return key


def _mark(inner: Backend, key: str) -> str:
    """Mark an empty vault as encrypted; returns the key that it is marked with, which may be somebody
    else's."""
    if next(inner.list(), None) is not None:
        raise WrongKey(
            f"the vault {inner.describe()} is not encrypted, and a key was given: open it without, or "
            f"copy it into "
            "an empty one that has a key (`midstep vault cp`)"
        )
    try:
        inner.create(MARKER, json.dumps({"format": FORMAT, "key": key}).encode())
        return key
    except ObjectExists:
        return _marker(inner) or ""
