"""Folders as tar streams, made while they are sent."""

from __future__ import annotations

import fcntl
import logging
import os
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

LOG = logging.getLogger("midstep.api")
_PIECE_BYTES = 1 << 20


def tar_stream(folders: Sequence[tuple[Path, str]]) -> Iterator[bytes]:
    """Folders below names of the archive ('' is its top), as the pieces of an uncompressed tar."""
    read_end, write_end = os.pipe()
    with suppress(OSError):  # over the user's limit: slower, no more
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIECE_BYTES)
    thread = threading.Thread(target=_write, args=(write_end, folders), daemon=True)
    thread.start()
    try:
        with open(read_end, "rb") as pipe:
            while piece := pipe.read(_PIECE_BYTES):
                yield piece
    finally:
        thread.join()


def _write(write_end: int, folders: Sequence[tuple[Path, str]]) -> None:
    with suppress(BrokenPipeError), open(write_end, "wb") as pipe:
        try:
            with tarfile.open(
                fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES
            ) as tar:
                tar.copybufsize = _PIECE_BYTES  # pyright: ignore[reportAttributeAccessIssue] - not in its stubs
                for folder, name in folders:
                    for path in sorted(folder.iterdir()):
                        tar.add(path, str(Path(name) / path.name))
        except BrokenPipeError:
            raise
        except OSError as error:  # the reader sees an archive that ends early
            LOG.warning("cannot send %s: %s", error.filename, error.strerror)
