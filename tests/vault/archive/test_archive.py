"""Store, load, restore, forget: a snapshot comes back whole, is committed once, and by its job's owner."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from random import Random

import pytest

from midstep.vault.archive import fence
from midstep.vault.archive.check import check
from midstep.vault.archive.copying import copy
from midstep.vault.archive.manifest import decode, encode
from midstep.vault.archive.retention import Rule, doomed
from midstep.vault.archive.usage import usage
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import (
    Damaged,
    Fenced,
    FormatUnknown,
    ManifestDamaged,
    SnapshotIncomplete,
    SnapshotMissing,
    VaultError,
)
from midstep.vault.places import Place, open_archive
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archive_at, contents, pages, store, write_raw


@pytest.fixture
def vault(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "vault")


def test_what_was_stored_comes_back(vault: Snapshots, tmp_path: Path) -> None:
    manifest = write_raw(vault, "j-1", 1)
    before = contents(vault.path("j-1"))
    archive = archive_at(tmp_path / "archive")
    stored = store(vault, archive, "j-1")
    assert archive.load("j-1") == stored and stored.manifest == manifest
    assert stored.reason == "test" and stored.nbytes == manifest.nbytes and set(stored.logs) == {0, 1}
    again = archive_at(tmp_path / "archive")
    assert again.restore(again.load("j-1"), tmp_path / "out") == manifest.nbytes
    assert contents(tmp_path / "out") == before
    assert not check(again, deep=True)


def test_storing_again_changes_nothing(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1)
    backend = MemoryBackend()
    first = store(vault, archive_at(backend), "j-1")
    before = list(backend.list())
    assert store(vault, archive_at(backend), "j-1") == first
    assert list(backend.list()) == before


def test_what_is_known_is_not_stored_again(vault: Snapshots) -> None:
    memory = pages(Random(7), 1024)
    write_raw(vault, "j-1", 1, memory=memory)
    write_raw(vault, "j-2", 2, memory=memory)
    archive = archive_at(MemoryBackend())
    first, second = store(vault, archive, "j-1"), store(vault, archive, "j-2")
    assert first.nbytes - first.new_bytes >= 0.8 * len(memory), "the ranks share it"
    assert second.nbytes - second.new_bytes >= 1.8 * len(memory), "so do the snapshots"
    (row,) = usage(archive).jobs
    assert row.snapshots == 2 and row.nbytes == first.nbytes + second.nbytes
    assert 0.9 * (first.stored_bytes + second.stored_bytes) < row.own_bytes <= row.stored_bytes


def test_a_node_gets_only_its_ranks_and_later_others(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1)
    before = contents(vault.path("j-1"))
    archive = vault.archive(create=True)
    assert archive is not None
    store(vault, archive, "j-1")
    vault.delete("j-1")
    assert not vault.exists("j-1") and vault.is_archived("j-1")
    assert vault.materialise("j-1", [1], []) > 0
    assert sorted(p.name for p in vault.path("j-1").iterdir() if p.is_dir()) == ["rank-1"]
    assert vault.materialise("j-1", [1], []) == 0, "it is there"
    assert vault.materialise("j-1", [0], [0]) > 0
    assert contents(vault.path("j-1")) == before
    assert vault.manifest("j-1") == archive.load("j-1").manifest == vault.verify("j-1")
    vault.delete("j-1")
    assert vault.ids() == [] and vault.is_archived("j-1")


def test_what_was_restored_before_a_boot_is_restored_again(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1)
    archive = vault.archive(create=True)
    assert archive is not None
    store(vault, archive, "j-1")
    vault.delete("j-1")
    vault.materialise("j-1")
    page = vault.path("j-1") / "rank-0" / "core-1.img"
    page.write_bytes(b"torn by the loss of power")
    (vault.path("j-1") / "boot.json").write_text('{"boot": "another"}')
    assert vault.materialise("j-1", [0], []) > 0
    assert page.stat().st_size == 3000


def test_a_snapshot_that_lacks_a_file_is_not_archived(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1)
    (vault.path("j-1") / "rank-0" / "core-1.img").write_bytes(b"short")
    archive = archive_at(MemoryBackend())
    with pytest.raises(SnapshotIncomplete, match=r"core-1.img has 5 bytes instead of 3000"):
        store(vault, archive, "j-1")
    assert not archive.exists("j-1") and not [i for i in archive.backend.list() if "lease" in i.name]


def test_what_criu_writes_beside_the_images_is_not_of_the_snapshot(vault: Snapshots, tmp_path: Path) -> None:
    write_raw(vault, "j-1", 1)
    (vault.path("j-1") / "rank-0" / "restore.log").write_text("later")
    archive = archive_at(MemoryBackend())
    archive.restore(store(vault, archive, "j-1"), tmp_path / "out")
    assert not (tmp_path / "out" / "rank-0" / "restore.log").exists()


def test_the_newest_is_told_without_a_clock(vault: Snapshots) -> None:
    archive = archive_at(MemoryBackend())
    for snapshot_id in ("j-9", "j-9.2", "j-10", "j-9.10"):
        write_raw(vault, snapshot_id, 1, ranks=1, mib=1)
        store(vault, archive, snapshot_id)
    write_raw(vault, "j-3", 1, ranks=1, mib=1)
    store(vault, archive, "j-3", generation=2)
    assert [s.snapshot_id for s in archive.snapshots("j")] == ["j-9.2", "j-9.10", "j-9", "j-10", "j-3"]


def test_of_two_owners_the_later_one_writes(vault: Snapshots) -> None:
    for snapshot_id in ("j-1", "j-2", "j-3"):
        write_raw(vault, snapshot_id, 1, ranks=1, mib=1)
    archive = archive_at(MemoryBackend())
    old = fence.claim(archive.backend, "j", "old", archive.ids)
    store(vault, archive, "j-1", old)
    new = fence.claim(archive.backend, "j", "new", archive.ids)
    assert new > old
    with pytest.raises(Fenced, match=r"belongs to owner 2 \(new\)"):
        store(vault, archive, "j-2", old)
    assert not archive.exists("j-2")
    store(vault, archive, "j-2", new)
    with pytest.raises(Fenced):
        store(vault, archive, "j-2", old)
    assert archive.snapshot_ids("j") == ["j-1", "j-2"]


def test_an_owner_that_is_outranked_while_it_commits_takes_it_back(vault: Snapshots) -> None:
    class Taken(MemoryBackend):
        """Another owner comes in the instant after the manifest is there."""

        def create(self, name: str, data: bytes | bytearray | memoryview) -> None:
            super().create(name, data)
            if name.startswith("snapshots/"):
                fence.claim(self, "j", "new", archive.ids)

    write_raw(vault, "j-1", 1, ranks=1, mib=1)
    archive = archive_at(Taken())
    mine = fence.claim(archive.backend, "j", "old", archive.ids)
    with pytest.raises(Fenced):
        store(vault, archive, "j-1", mine)
    assert not archive.exists("j-1")


def test_a_copy_brings_only_what_the_other_lacks(vault: Snapshots, tmp_path: Path) -> None:
    memory = pages(Random(7), 1024)
    source, target = archive_at(MemoryBackend()), archive_at(MemoryBackend())
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number, ranks=1, memory=memory, mib=1)
        store(vault, source, f"j-{number}")
    first, second = copy(source, "j-1", target), copy(source, "j-2", target)
    assert first.sent_bytes > len(memory) * 0.8 > 2 * second.sent_bytes > 0
    assert copy(source, "j-2", target).again
    assert not check(target, deep=True)
    target.restore(target.load("j-2"), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(vault.path("j-2"))


def test_any_flipped_bit_of_a_manifest_is_found(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1, ranks=1, mib=1)
    data = encode(store(vault, archive_at(MemoryBackend()), "j-1"))
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        with pytest.raises(ManifestDamaged):
            decode(bytes(bad), "it")
    for end in range(0, len(data), 7):
        with pytest.raises(ManifestDamaged):
            decode(data[:end], "it")


def test_another_format_is_refused_with_what_to_do(vault: Snapshots, tmp_path: Path) -> None:
    from blake3 import blake3

    write_raw(vault, "j-1", 1, ranks=1, mib=1)
    archive = archive_at(tmp_path / "archive")
    data = encode(store(vault, archive, "j-1"))
    newer = (99).to_bytes(2, "big")
    changed = data[:8] + newer + blake3(newer + data[42:]).digest() + data[42:]
    with pytest.raises(FormatUnknown, match=r"format 99.*newer Midstep"):
        decode(changed, "it")
    (tmp_path / "archive" / "format").write_bytes(b"midstep vault, format 2\n")
    with pytest.raises(FormatUnknown, match="use the Midstep that wrote it"):
        archive_at(tmp_path / "archive")
    (tmp_path / "archive" / "format").write_bytes(b"midstep wault, format 1\n")
    with pytest.raises(Damaged, match="`format`"):
        archive_at(tmp_path / "archive")


def test_what_is_not_there(tmp_path: Path, vault: Snapshots) -> None:
    with pytest.raises(VaultError, match="there is no vault"):
        open_archive(Place(str(tmp_path / "nothing")), create=False)
    assert not (tmp_path / "nothing").exists() and vault.archive() is None
    with pytest.raises(SnapshotMissing):
        archive_at(MemoryBackend()).load("j-1")
    with pytest.raises(SnapshotMissing):
        vault.materialise("j-1")
    (vault.root / "archive.json").write_text("no json")
    with pytest.raises(VaultError, match=r"archive.json cannot be read"):
        vault.archive()


def test_the_archive_may_be_elsewhere_and_encrypted(vault: Snapshots, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    place = f'{{"url": "{tmp_path / "elsewhere"}", "key_file": "{key}"}}'
    (vault.root / "archive.json").write_text(place)
    write_raw(vault, "j-1", 1)
    before = contents(vault.path("j-1"))
    archive = vault.archive(create=True)
    assert archive is not None
    store(vault, archive, "j-1")
    vault.delete("j-1")
    other = Snapshots(vault.root)
    other.materialise("j-1")
    assert contents(other.path("j-1")) == before
    assert not any(
        b"line\nline" in p.read_bytes() for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()
    )


@pytest.mark.parametrize(
    ("keep", "needed", "damaged", "goes"),
    [
        (2, (), (), ["a", "b"]),
        (2, ("a",), (), ["b"]),
        (2, (), ("d",), ["a", "d"]),
        (2, ("d",), ("d",), ["a"]),
        (0, (), (), ["a", "b", "c", "d"]),
        (9, (), (), []),
    ],
)
def test_retention(keep: int, needed: tuple[str, ...], damaged: Collection[str], goes: list[str]) -> None:
    assert doomed(Rule("j", keep, needed), ["a", "b", "c", "d"], damaged) == goes
