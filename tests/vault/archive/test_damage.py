"""A flipped bit anywhere is found by `check --deep`, which names the object and the snapshots that it hurts.
A restore of one of those says so, and never brings back wrong bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from midstep.vault.archive import gc
from midstep.vault.archive.check import Grade, check, damaged_snapshots
from midstep.vault.archive.mend import mend
from midstep.vault.archive.orders import Orders
from midstep.vault.errors import Damaged, FormatUnknown, VaultError
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import (
    AtOnce,
    archive_at,
    archiver,
    contents,
    flip,
    objects,
    pages,
    store,
    two_snapshots,
    write_raw,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of two snapshots that share nothing."""
    return two_snapshots(tmp_path, "archive")


def places(path: Path, chance: Random) -> list[int]:
    """The first bytes, the last ones, and some between."""
    size = path.stat().st_size
    return sorted({0, size - 1, size - 40, *(chance.randrange(size) for _ in range(5))})


def test_every_object_of_every_kind(root: Path) -> None:
    chance = Random(1)
    kinds: set[str] = set()
    for path in objects(root / "archive"):
        name = str(path.relative_to(root / "archive"))
        kind = name.partition("/")[0]
        if kind in ("owners", "sweep"):  # say nothing about bytes
            continue
        kinds.add(kind)
        for at in places(path, chance):
            original = path.read_bytes()
            flip(path, at, chance.randrange(8))
            _assert_found(root, name, kind)
            path.write_bytes(original)
    assert kinds == {"format", "packs", "index", "snapshots"}
    assert check(archive_at(root / "archive"), deep=True) == []


def _assert_found(root: Path, name: str, kind: str) -> None:
    if kind == "format":
        with pytest.raises((Damaged, FormatUnknown), match="format"):
            archive_at(root / "archive")
        return
    archive = archive_at(root / "archive")
    found = [finding for finding in check(archive, deep=True) if finding.grade is Grade.DAMAGE]
    assert any(name in (it.object, *it.what.split()) or name in it.what for it in found), (name, found)
    hurt = damaged_snapshots(found)
    for snapshot_id in ("j-1", "j-2"):
        out = root / "out"
        try:
            archive.restore(archive.load(snapshot_id), out)
            assert contents(out) == contents(root / "vault" / "snapshots" / snapshot_id)
        except VaultError:
            assert snapshot_id in hurt, (name, snapshot_id, found)
        else:
            assert snapshot_id not in hurt or kind != "packs", (name, snapshot_id, found)
        shutil.rmtree(out, ignore_errors=True)
    assert len(hurt) < 2, "the other one is whole"


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_pack_that_is_gone_or_cut_is_found_without_reading_all(root: Path, how: str) -> None:
    pack = max(objects(root / "archive" / "packs"), key=lambda path: path.stat().st_size)
    if how == "gone":
        pack.unlink()
    else:
        pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
    found = check(archive_at(root / "archive"))
    assert found and found[0].object == str(pack.relative_to(root / "archive"))
    (hurt,) = damaged_snapshots(found)
    with pytest.raises(Damaged, match=rf"snapshot {hurt} cannot be restored.*an older snapshot"):
        archive = archive_at(root / "archive")
        archive.restore(archive.load(hurt), root / "out")


def test_nothing_is_collected_while_a_manifest_cannot_be_read(root: Path) -> None:
    flip(root / "archive" / "snapshots" / "j" / "j-2", 60)
    archive = archive_at(root / "archive")
    with pytest.raises(Damaged, match="nobody knows what snapshot j-2 needs"):
        gc.plan(archive)
    archive.forget("j-2")
    done = gc.execute(archive, gc.plan(archive))
    assert done.packs > 0 and check(archive, deep=True) == []


def test_a_lost_index_is_made_again_from_the_packs(root: Path) -> None:
    for path in objects(root / "archive" / "index"):
        path.unlink()
    archive = archive_at(root / "archive")
    assert damaged_snapshots(check(archive)) == ["j-1", "j-2"]
    archive.repository.heal()
    assert check(archive, deep=True) == []
    assert archive.restore(archive.load("j-1"), root / "out") > 0


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_what_is_damaged_is_stored_anew_and_makes_old_snapshots_whole(root: Path, how: str) -> None:
    """The same memory is still there, in a later snapshot."""
    vault = Snapshots(root / "vault")
    (vault.root / "archive.json").write_text(f'{{"url": "{root}/archive"}}')
    pack = max(objects(root / "archive" / "packs"), key=lambda path: path.stat().st_size)
    flip(pack, pack.stat().st_size // 2) if how == "flipped" else pack.unlink()
    (hurt,) = damaged_snapshots(check(archive_at(root / "archive"), deep=True))
    write_raw(vault, "j-3", int(hurt[-1]), ranks=1, mib=1)
    code, news = archiver(vault, Orders(mend=(hurt,), store={"j-3": "after the damage"}))
    assert code == 0 and news[0].what == "mended" and news[0].nbytes > 0, news
    assert (news[-1].new_bytes > 0) and check(archive_at(root / "archive"), deep=True) == []
    for snapshot_id in ("j-1", "j-2", "j-3"):
        archive = archive_at(root / "archive")
        archive.restore(archive.load(snapshot_id), root / snapshot_id)
        assert contents(root / snapshot_id) == contents(vault.path(snapshot_id))


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_damaged_packs_what_is_whole_in_either_is_kept(tmp_path: Path, first: int) -> None:
    vault, backend = Snapshots(tmp_path / "vault"), AtOnce()
    memory = pages(Random(1), 256)
    for number in (1, 2):
        write_raw(vault, f"j-{number}", 5, ranks=1, memory=memory, mib=1)
    backend.work = lambda: store(vault, archive_at(backend), "j-2")
    store(vault, archive_at(backend), "j-1")
    one, other = (info.name for info in backend.list("packs"))
    chunks = archive_at(backend).repository.packs()
    spans = [sorted(((it.offset, it.stored) for it in pack.chunks), key=lambda it: it[1]) for pack in chunks]
    for name, span, which in ((one, spans[0], -1 - first), (other, spans[1], -2 + first)):
        at, length = span[which]
        data = bytearray(backend.get(name))
        data[at + length // 2] ^= 1
        backend.put(name, bytes(data))
    assert {it.object for it in check(archive_at(backend), deep=True)} == {one, other}
    assert sorted(done.lost for done in mend(archive_at(backend))) == [1, 1]
    assert check(archive_at(backend), deep=True) == []
    for name in ("j-1", "j-2"):
        archive = archive_at(backend)
        archive.restore(archive.load(name), tmp_path / name)
        assert contents(tmp_path / name) == contents(vault.path(name))


def test_mending_what_is_whole_changes_nothing(root: Path) -> None:
    before = {path: path.read_bytes() for path in objects(root / "archive") if path.name != "sweep"}
    assert mend(archive_at(root / "archive")) == []
    assert {p: p.read_bytes() for p in objects(root / "archive") if p.name != "sweep"} == before
