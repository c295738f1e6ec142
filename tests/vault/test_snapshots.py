"""A snapshot is visible whole or not at all, whatever is missing and wherever the writer dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.vault.errors import SnapshotExists, SnapshotIncomplete, SnapshotMissing
from midstep.vault.snapshots import Part, Snapshots


@pytest.fixture
def vault(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "vault")


def write_part(vault: Snapshots, snapshot_id: str, index: int) -> Part:
    name = f"rank-{index}/pages.img"
    folder = vault.stage(snapshot_id) / f"rank-{index}"
    folder.mkdir()
    (folder / "pages.img").write_bytes(b"x" * (100 + index))
    part = Part(index, (index,), (0,), 100 + index, {name: 100 + index}, {str(index): {"stopped": [1]}})
    vault.put_part(snapshot_id, part)
    return part


def test_commit_makes_it_visible_with_every_part(vault: Snapshots) -> None:
    parts = tuple(write_part(vault, "s1", i) for i in range(3))
    assert not vault.exists("s1")
    manifest = vault.commit("s1", "j", 4, 3, {"k": "dg=="})
    assert manifest.parts == parts and manifest.nbytes == 303
    assert vault.manifest("s1") == manifest
    assert [m.snapshot_id for m in vault.committed()] == ["s1"]


def test_commit_twice_is_harmless(vault: Snapshots) -> None:
    write_part(vault, "s1", 0)
    assert vault.commit("s1", "j", 1, 1, {}) == vault.commit("s1", "j", 1, 1, {})


def test_a_missing_part_commits_nothing(vault: Snapshots) -> None:
    write_part(vault, "s1", 0)
    with pytest.raises(SnapshotIncomplete, match="part 1 of snapshot s1"):
        vault.commit("s1", "j", 1, 2, {})
    with pytest.raises(SnapshotMissing):
        vault.manifest("s1")


def test_a_short_file_is_named(vault: Snapshots) -> None:
    write_part(vault, "s1", 0)
    (vault.stage("s1") / "rank-0" / "pages.img").write_bytes(b"x")
    with pytest.raises(SnapshotIncomplete, match=r"pages.img has 1 bytes instead of 100"):
        vault.commit("s1", "j", 1, 1, {})


def test_a_committed_snapshot_cannot_be_staged_again(vault: Snapshots) -> None:
    write_part(vault, "s1", 0)
    vault.commit("s1", "j", 1, 1, {})
    with pytest.raises(SnapshotExists):
        vault.stage("s1")


def test_delete_of_anything_at_any_time(vault: Snapshots) -> None:
    vault.delete("never")
    write_part(vault, "s1", 0)
    vault.delete("s1")
    write_part(vault, "s2", 0)
    vault.commit("s2", "j", 1, 1, {})
    vault.delete("s2")
    assert not list(vault.committed())
    assert not any((vault.root / "snapshots").iterdir())


def test_a_copy_from_another_region_is_verified_before_it_counts(vault: Snapshots, tmp_path: Path) -> None:
    write_part(vault, "s1", 0)
    vault.commit("s1", "j", 1, 1, {})
    other = Snapshots(tmp_path / "other")
    stage = other.stage("s1")
    for source in sorted(vault.path("s1").rglob("*")):
        target = stage / source.relative_to(vault.path("s1"))
        target.mkdir() if source.is_dir() else target.write_bytes(source.read_bytes())
    (stage / "rank-0" / "pages.img").write_bytes(b"torn")
    with pytest.raises(SnapshotIncomplete):
        other.adopt("s1")
    assert not other.exists("s1")
    (stage / "rank-0" / "pages.img").write_bytes(b"x" * 100)
    other.adopt("s1")
    assert other.manifest("s1") == vault.manifest("s1")


def test_what_was_torn_by_a_loss_of_power_is_found_before_it_is_used(vault: Snapshots) -> None:
    for snapshot_id in ("s1", "s2"):
        write_part(vault, snapshot_id, 0)
        vault.commit(snapshot_id, "j", 1, 1, {})
        vault.flush(snapshot_id)
        assert vault.verify(snapshot_id).snapshot_id == snapshot_id
    (vault.path("s1") / "rank-0" / "pages.img").write_bytes(b"x" * 40)
    with pytest.raises(SnapshotIncomplete, match=r"pages.img has 40 bytes instead of 100"):
        vault.verify("s1")
    (vault.path("s2") / "manifest.json").write_bytes(b"")
    with pytest.raises(SnapshotIncomplete, match="torn"):
        vault.verify("s2")


def test_flushing_what_is_gone_is_harmless(vault: Snapshots) -> None:
    vault.flush("never")
