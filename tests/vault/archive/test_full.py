"""A full disk, as a real small one: nothing half is visible, what was there stays, with room it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from midstep.vault.archive.check import Grade, check
from midstep.vault.archive.orders import Orders
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archiver, contents, write_raw

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """6 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_archive_on_a_full_disk(small: Path, tmp_path: Path) -> None:
    vault = Snapshots(tmp_path / "vault")
    (vault.root / "archive.json").write_text(f'{{"url": "{small}/archive"}}')
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number, ranks=1, mib=4)
    assert archiver(vault, ["j-1"])[0] == 0
    code, news = archiver(vault, ["j-2"])
    assert code == 1 and news[-1].kind == "BackendFull", news
    assert "small" in news[-1].error
    archive = vault.archive()
    assert archive is not None and archive.snapshot_ids() == ["j-1"]
    assert [f for f in check(archive, deep=True) if f.grade is Grade.DAMAGE] == []
    subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
    assert archiver(vault, Orders(store={"j-2": "again"}))[0] == 0
    before = contents(vault.path("j-2"))
    vault.delete("j-2")
    vault.materialise("j-2")
    assert contents(vault.path("j-2")) == before


def test_a_restore_on_a_full_disk(small: Path) -> None:
    vault = Snapshots(small / "vault")
    (vault.root / "archive.json").write_text(f'{{"url": "{small.parent}/archive"}}')
    write_raw(vault, "j-1", 1, ranks=1, mib=3)
    before = contents(vault.path("j-1"))
    assert archiver(vault, ["j-1"])[0] == 0
    vault.delete("j-1")
    filler = small / "filler"
    filler.write_bytes(bytes(4 << 20))
    with pytest.raises(OSError, match="No space left"):
        vault.materialise("j-1")
    filler.unlink()
    vault.materialise("j-1")
    assert contents(vault.path("j-1")) == before
