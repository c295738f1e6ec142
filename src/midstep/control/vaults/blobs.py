"""Uploaded work directories, named by the SHA-256 of their bytes: STATE/blobs/HASH."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from midstep.control.errors import BadBlob, NotFound
from midstep.env import Ids

_NAME = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """Blobs are written once and never change."""

    def __init__(self, state_dir: Path, ids: Ids) -> None:
        self._folder = state_dir / "blobs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ids = ids
        for leftover in self._folder.glob("*.part"):
            leftover.unlink()

    async def put(self, pieces: AsyncIterator[bytes]) -> str:
        """Keep an upload; returns its name. Raises BadBlob, OSError."""
        part = self._folder / f"{self._ids.token()}.part"
        digest = hashlib.sha256()
        try:
            with part.open("wb") as file:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            _check(part)
            os.rename(part, self._folder / digest.hexdigest())
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest()

    def path(self, blob: str) -> Path:
        """A blob's file; raises NotFound."""
        path = self._folder / blob
        if not _NAME.fullmatch(blob) or not path.is_file():
            raise NotFound(f"there is no upload {blob[:70]!r}")
        return path


def _check(path: Path) -> None:
    try:
        with tarfile.open(path, "r:gz") as tar:
            tar.next()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadBlob(f"the upload is not a .tar.gz archive: {error}") from None
