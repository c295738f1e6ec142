"""What a node fetches: a job's work directory from the controller, a snapshot's folder out of the region's
vault."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import IO, cast

import httpx

from midstep.agent.errors import TransferError
from midstep.model.job import SnapshotRef
from midstep.vault.errors import SnapshotIncomplete
from midstep.vault.snapshots import Snapshots

FULL = (errno.ENOSPC, errno.EDQUOT)  # not the connection's fault: left as an OSError that names the folder
_READ_TIMEOUT_S = 30.0
_BUFFER_BYTES = 1 << 20
_LOCK_POLL_S = 0.1


class Fetcher:
    """Downloads over HTTP. All methods block: call them in threads. They raise TransferError."""

    def __init__(self, controller: str, token: str, region: str, scratch: Path) -> None:
        self._region = region
        self._controller = controller.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    def workdir(self, blob: str, into: Path, uid: int, gid: int, deadline_s: float) -> int:
        """Fetch a work directory and unpack it as the job's user's; returns the bytes fetched."""
        end_s = time.monotonic() + deadline_s
        with tempfile.TemporaryFile(dir=self._scratch) as archive:
            digest = hashlib.sha256()
            with self._get(f"/v1/internal/blobs/{blob}", end_s) as body:
                while piece := body.read(_BUFFER_BYTES):
                    digest.update(piece)
                    archive.write(piece)
            if digest.hexdigest() != blob:
                raise TransferError(f"the work directory {blob} came damaged; submit the job again")
            nbytes = archive.tell()
            archive.seek(0)
            unpack(archive, into, "r:gz", owner=(uid, gid))
        return nbytes

    def snapshot(
        self,
        source: SnapshotRef,
        vault: Snapshots,
        deadline_s: float,
        ranks: Collection[int] | None = None,
        homes: Collection[int] | None = None,
    ) -> int:
        """Have a folder of a snapshot in this region's vault, with these ranks and homes (None: all); returns
        the bytes brought back from the archive; 0 when it was there. Nodes of a region that want the same one
        wait for the first. VaultError: it is not there, or not whole, and there is no other."""
        end_s = time.monotonic() + deadline_s
        with locked(vault.root / "locks" / f"{source.snapshot_id}.lock", end_s):
            if vault.is_raw(source.snapshot_id) and self._is_whole(source, vault):
                return 0
            return vault.materialise(source.snapshot_id, ranks, homes)

    def _is_whole(self, source: SnapshotRef, vault: Snapshots) -> bool:
        try:
            vault.verify(source.snapshot_id)
        except SnapshotIncomplete:  # the machine lost power before it was on disk
            if not vault.is_archived(source.snapshot_id):
                raise
            vault.delete(source.snapshot_id)
            return False
        return True

    @contextlib.contextmanager
    def _get(self, path: str, end_s: float) -> Generator[_Body]:
        url = self._controller + path
        try:
            with httpx.stream(
                "GET", url, headers=self._headers, timeout=_READ_TIMEOUT_S, trust_env=False
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise TransferError(
                        f"GET {url} was answered with {response.status_code}: {response.text[:200]}"
                    )
                yield _Body(response.iter_bytes(_BUFFER_BYTES), url, end_s)
        except httpx.HTTPError as error:
            raise TransferError(f"GET {url} failed: {error or type(error).__name__}") from error


class _Body(io.RawIOBase):
    """A response as a file that tarfile can read, with a time by which it must have been read."""

    def __init__(self, pieces: Iterator[bytes], url: str, end_s: float) -> None:
        super().__init__()
        self._pieces, self._url, self._end_s = pieces, url, end_s
        self._rest = memoryview(b"")
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            if time.monotonic() > self._end_s:
                raise TransferError(f"GET {self._url} was too slow: {self.count} bytes by its deadline")
            self._rest = memoryview(next(self._pieces, b""))
        piece = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(piece) :]
        self.count += len(piece)
        return bytes(piece)


def unpack(archive: IO[bytes], into: Path, mode: str, owner: tuple[int, int] | None = None) -> None:
    """Unpack a tar so that nothing lands outside ``into``: names that climb, links that are written through,
    and device files are refused. ``owner`` None: as the archive says (images and homes must come back as they
    were)."""
    root = os.path.realpath(into)

    def check(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
        _refuse_outside(member, root)
        if owner is None:
            return member
        bits = (member.mode & 0o777) | (0o700 if member.isdir() else 0o600)
        return member.replace(uid=owner[0], gid=owner[1], uname="", gname="", mode=bits, deep=False)

    try:
        with tarfile.open(
            fileobj=archive, mode=mode, bufsize=_BUFFER_BYTES, copybufsize=_BUFFER_BYTES
        ) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]
            cast("tarfile.TarFile", tar).extractall(into, filter=check, numeric_owner=True)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(into)) from error
        raise TransferError(f"cannot unpack into {into}: {error}") from error


def _refuse_outside(member: tarfile.TarInfo, root: str) -> None:
    if member.isdev() and not member.isfifo():
        raise TransferError(f"the archive holds the device file {member.name!r}")
    for name in (member.name, member.linkname) if member.islnk() else (member.name,):
        parent = os.path.realpath(os.path.join(root, os.path.dirname(name)))
        inside = parent == root or parent.startswith(root + os.sep)
        if os.path.isabs(name) or ".." in name.split("/") or not inside:
            raise TransferError(f"the archive holds {name!r}, which leads out of its folder")


@contextlib.contextmanager
def locked(path: Path, end_s: float) -> Generator[None]:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise TransferError(f"another node of the region is still fetching ({path})") from None
                time.sleep(_LOCK_POLL_S)
        yield


def tree_bytes(folder: Path) -> dict[str, int]:
    """Path below ``folder`` -> size, of every regular file."""
    sizes: dict[str, int] = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path) and not os.path.islink(path):
                sizes[os.path.relpath(path, folder)] = os.stat(path).st_size
    return sizes


def remove_tree(path: Path) -> None:
    """Remove a folder even while a late thread still writes to it: out of the way first."""
    doomed = path.with_name(path.name + ".removing")
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
