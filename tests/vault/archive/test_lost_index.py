"""An index that is lost or torn makes nothing that a snapshot needs look like waste."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.vault.archive import gc
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archive_at, contents, store, write_raw


@pytest.mark.parametrize("keep", [None, 0, 50])
def test_collecting_without_an_index_keeps_what_is_needed(tmp_path: Path, keep: int | None) -> None:
    vault, backend = Snapshots(tmp_path / "vault"), MemoryBackend()
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number)
        store(vault, archive_at(backend), f"j-{number}")
    archive_at(backend).forget("j-1")
    for info in list(backend.list("index")):
        if keep is None:
            backend.delete(info.name)
        else:
            backend.put(info.name, backend.get(info.name)[:keep])
    archive = archive_at(backend)
    assert gc.execute(archive, gc.plan(archive)).freed_bytes > 0
    archive = archive_at(backend)
    archive.restore(archive.load("j-2"), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(vault.path("j-2"))
