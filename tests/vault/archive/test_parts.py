"""Snapshots that consist of parts of the chunks of earlier ones.

Buys: whatever becomes of the earlier ones, and wherever a snapshot goes, it has all that it needs; a program
that knows no parts says so and touches nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from midstep.vault.archive import gc, manifest
from midstep.vault.archive.archive import Archive, object_name
from midstep.vault.archive.check import Grade, check
from midstep.vault.archive.copying import copy
from midstep.vault.archive.manifest import ArchivedSnapshot, decode, encode
from midstep.vault.archive.trees import contents_of
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import Damaged, FormatUnknown, ManifestDamaged
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archive_at, contents, pages, store, write_raw

NAMES = ("j-1-1", "j-1-2", "j-1-3")


@pytest.fixture
def vault(tmp_path: Path) -> Snapshots:
    """Three snapshots of a job; from one to the next a line of every other page changes."""
    vault, memory, chance = Snapshots(tmp_path / "vault"), bytearray(pages(Random(1), 200)), Random(2)
    for name in NAMES:
        write_raw(vault, name, 3, memory=bytes(memory))
        for page in range(0, 200, 2):
            memory[page * 4096 + chance.randrange(4096)] ^= 1
    return vault


@pytest.fixture
def archive(vault: Snapshots) -> Archive:
    archive = archive_at(MemoryBackend())
    for name in NAMES:
        store(vault, archive, name)
    return archive


def in_parts(snapshot: ArchivedSnapshot) -> bool:
    return any(content.in_parts for tree in snapshot.trees.values() for content in contents_of(tree))


def version(archive: Archive, name: str) -> int:
    return int.from_bytes(archive.backend.get(object_name(name))[8:10], "big")


def assert_whole(archive: Archive, vault: Snapshots, name: str, into: Path) -> None:
    assert [it for it in check(archive, deep=True) if it.grade is Grade.DAMAGE] == []
    archive.restore(archive.load(name), into)
    found = {path: it for path, it in contents(into).items() if path in contents(vault.path(name))}
    assert found == contents(vault.path(name))


def test_the_next_ones_cost_next_to_nothing(archive: Archive, vault: Snapshots, tmp_path: Path) -> None:
    first, *later = (archive.load(name) for name in NAMES)
    assert not in_parts(first) and version(archive, NAMES[0]) == manifest.FORMAT_WHOLE
    for snapshot in later:
        assert in_parts(snapshot) and version(archive, snapshot.snapshot_id) == manifest.FORMAT
        assert decode(encode(snapshot), "it") == snapshot
        assert snapshot.stored_bytes < 0.05 * first.stored_bytes
        assert_whole(archive, vault, snapshot.snapshot_id, tmp_path / snapshot.snapshot_id)


def test_they_stay_whole_when_the_earlier_ones_go(archive: Archive, vault: Snapshots, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        archive.forget(name)
        gc.execute(archive, gc.plan(archive))
        assert_whole(archive, vault, NAMES[2], tmp_path / f"without-{name}")
    archive.forget(NAMES[2])
    gc.execute(archive, gc.plan(archive))
    assert list(archive.backend.list("packs")) == []


def test_they_go_to_another_archive(archive: Archive, vault: Snapshots, tmp_path: Path) -> None:
    other = archive_at(MemoryBackend())
    copy(archive, NAMES[2], other)
    assert_whole(other, vault, NAMES[2], tmp_path / "alone")
    sent = copy(archive, NAMES[1], other)
    assert sent.sent_bytes < 300_000, "only what is missing"
    assert_whole(other, vault, NAMES[1], tmp_path / "too")


def test_a_program_that_knows_no_parts_says_so(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT", manifest.FORMAT_WHOLE)
    assert archive.load(NAMES[0])
    with pytest.raises(FormatUnknown, match=r"has format 2, .* use a newer Midstep"):
        archive.load(NAMES[1])
    archive.forget(NAMES[0])
    with pytest.raises(FormatUnknown, match="nothing is collected"):
        gc.plan(archive)


def test_a_part_beyond_its_chunk_is_found_and_not_read(archive: Archive, tmp_path: Path) -> None:
    snapshot = archive.load(NAMES[1])
    tree = snapshot.trees["rank-0"]
    which, entry = next((n, it) for n, it in enumerate(tree) if it.content and it.content.in_parts)
    assert entry.content
    spans = [it._replace(offset=1 << 20) if it.offset is not None else it for it in entry.content.spans]
    wrong = replace(entry, content=replace(entry.content, spans=tuple(spans)))
    trees = {**snapshot.trees, "rank-0": (*tree[:which], wrong, *tree[which + 1 :])}
    archive.forget(NAMES[1])
    archive.backend.create(object_name(NAMES[1]), encode(replace(snapshot, trees=trees)))
    [found] = [it for it in check(archive) if it.grade is Grade.DAMAGE]
    assert found.snapshots == (NAMES[1],) and "shorter than it needs" in found.what
    with pytest.raises(Damaged, match="what refers to it is wrong"):
        archive.restore(archive.load(NAMES[1]), tmp_path / "back")


@pytest.mark.parametrize(
    "row", [[128, [64, 64], "", [0, 0], [0, 64]], [64, [64], "A" * 42 + "E=", [0], [-1]]]
)
def test_parts_of_nothing_are_no_content(row: list[object]) -> None:
    from midstep.vault.archive.trees import content_of

    with pytest.raises((ValueError, TypeError, IndexError)):
        content_of(row)


def test_a_damaged_manifest_before_it_is_no_hindrance(vault: Snapshots, tmp_path: Path) -> None:
    archive = archive_at(MemoryBackend())
    store(vault, archive, NAMES[0])
    archive.forget(NAMES[0])
    archive.backend.create(object_name(NAMES[0]), b"MIDSTEPM" + bytes(60))
    with pytest.raises(ManifestDamaged):
        archive.load(NAMES[0])
    assert not in_parts(store(vault, archive, NAMES[1]))
