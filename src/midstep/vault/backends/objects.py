"""Objects in a bucket: S3 and what speaks its protocol, Google Cloud Storage, Azure; through the library
obstore.

Those stores show an object when its upload is whole, and create it only if the name is free when asked so
(If-None-Match, generation 0), which is all that the contract needs. The library's own retries are off:
retrying.py does it the same way for every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from midstep.vault.backends.base import Buffer, ObjectInfo, as_bytes, check_folder, check_name, end_of
from midstep.vault.backends.object_errors import RangeUnsatisfiable, meaning
from midstep.vault.errors import BackendError, ObjectMissing

Store: TypeAlias = S3Store | GCSStore | AzureStore

MULTIPART_BYTES = 64 * 2**20  # larger objects go up in parts, side by side; smaller ones in one request
PART_BYTES = 16 * 2**20  # S3 takes at most 10000 parts
PARTS_AT_ONCE = 4


class ObjectStoreBackend:
    """A prefix of a bucket. ``where`` is its URL, for messages."""

    def __init__(self, store: Store, where: str) -> None:
        self._store = store
        self._where = where

    def put(self, name: str, data: Buffer) -> None:
        check_name(name)
        content = as_bytes(data)
        try:
            self._store.put(
                name,
                content,
                use_multipart=content.nbytes > MULTIPART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        except (BaseError, OSError) as error:
            raise self._meaning(error, f"writing {name}", name) from error

    def create(self, name: str, data: Buffer) -> None:
        check_name(name)
        try:
            # conditions and parts do not go together, so this is one request whatever the size
            self._store.put(name, as_bytes(data), mode="create", use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._meaning(error, f"creating {name}", name) from error

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        if length == 0 or start < 0 or (length or 0) < 0:  # no range that a server understands
            end_of(name, start, length, self.size(name))
            return b""
        try:
            found = self._get(name, start, length)
        except RangeUnsatisfiable:
            end_of(name, start, length, self.size(name))
            return b""
        if length is not None:
            end_of(name, start, length, start + len(found))
        return found

    def size(self, name: str) -> int:
        check_name(name)
        try:
            return self._store.head(name)["size"]
        except (BaseError, OSError) as error:
            raise self._meaning(error, f"asking for the size of {name}", name) from error

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = check_folder(prefix)
        try:
            found = [
                ObjectInfo(item["path"], item["size"])
                for page in self._store.list(folder or None)  # pyright: ignore[reportUnknownMemberType]
                for item in page
            ]
        except (BaseError, OSError) as error:
            raise self._meaning(error, f"listing {folder or 'all'}", folder) from error
        return iter(sorted(found))  # some stores have no order

    def delete(self, name: str) -> None:
        check_name(name)
        try:
            self._store.delete(name)
        except (BaseError, OSError) as error:
            failure = self._meaning(error, f"deleting {name}", name)
            if not isinstance(failure, ObjectMissing):
                raise failure from error

    def describe(self) -> str:
        return self._where

    def _get(self, name: str, start: int, length: int | None) -> bytes:
        try:
            if length is not None:
                return bytes(self._store.get_range(name, start=start, length=length))
            if start:
                return bytes(self._store.get(name, options={"range": {"offset": start}}).bytes())
            return bytes(self._store.get(name).bytes())
        except (BaseError, OSError) as error:
            raise self._meaning(error, f"reading {name}", name) from error

    def _meaning(self, error: Exception, doing: str, name: str) -> BackendError:
        return meaning(error, doing, name, self._where)
