"""Where a region's archive is: in its vault's folder, unless `archive.json` there names another place.

    ROOT/archive/         the archive of a region whose vault is a folder
    ROOT/archive.json     {"url": "s3://bucket/prefix?endpoint=...", "key_file": "/path"}; or one of them

All nodes and the controller of the region read it, so they agree. Credentials for buckets are taken from the
environment, as their own tools do.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from midstep.env import Clock, Ids, RealClock, real_ids
from midstep.vault.archive.archive import Archive
from midstep.vault.errors import VaultError

FOLDER = "archive"
SETTINGS = "archive.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A URL as `open_backend` takes it, and the file of its key."""

    url: str
    key_file: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The folder that it is; None: it is none."""
        return None if "://" in self.url else Path(self.url)


def place_of(root: Path) -> Place:
    """Of a region's vault. VaultError: the settings cannot be read."""
    path = root / SETTINGS
    try:
        raw = json.loads(path.read_text())
        key_file = raw.get("key_file")
        return Place(str(raw.get("url") or root / FOLDER), Path(key_file) if key_file else None)
    except FileNotFoundError:
        return Place(str(root / FOLDER))
    except (OSError, ValueError, AttributeError) as error:
        raise VaultError(f"{path} cannot be read: {error}; it is like {{'url': 's3://...'}}") from None


def open_archive(
    place: Place,
    *,
    create: bool,
    clock: Clock | None = None,
    ids: Ids | None = None,
    workers: int | None = None,
) -> Archive:
    """The archive at a place. VaultError: there is none, and it is not to be made; or its own errors."""
    from midstep.vault.backends.keys import (
        find_key,
    )  # with the libraries of all kinds of buckets: when needed
    from midstep.vault.backends.open import open_backend

    if not create and place.folder is not None and not place.folder.is_dir():
        raise VaultError(f"there is no vault at {place.url}")
    backend = open_backend(place.url, key=find_key(place.key_file, os.environ))
    return Archive(backend, clock or RealClock(), ids or real_ids(), create=create, workers=workers)
