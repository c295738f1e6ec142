"""Whatever bit flips, it is found and named; a lost index is made again from the packs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import ChunkDamaged, Damaged, FormatUnknown, IndexDamaged, ObjectMissing
from midstep.vault.store import index, packs
from midstep.vault.store.repository import Content, Repository
from tests.vault.store.kit import flipped, names, noise, read_back, repository, store, text

DATA = text(300, 1) + noise(100, 2)


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def content(backend: MemoryBackend) -> Content:
    return store(repository(backend), DATA)[0][0]


def damage_of(backend: MemoryBackend) -> list[Damaged]:
    """What a deep look finds."""
    repo = repository(backend)
    return repo.damage + [found for pack in repo.packs() for found in repo.verify(pack.name)]


def flip(backend: MemoryBackend, name: str, bit: int) -> None:
    data = backend.get(name)
    backend.put(name, flipped(data, bit % (8 * len(data))))


def test_a_sound_repository_has_nothing_to_say(backend: MemoryBackend, content: Content) -> None:
    assert damage_of(backend) == []
    assert repository(backend).orphans() == []


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["packs", "index"]), st.integers(0, 10**9))
def test_any_flipped_bit_is_found_and_the_object_named(tmp_path: Path, folder: str, bit: int) -> None:
    backend = MemoryBackend()
    (content,), _ = store(repository(backend), DATA)
    (name,) = names(backend, folder)
    flip(backend, name, bit)
    found = damage_of(backend)
    assert found
    assert all(name in str(item) for item in found)
    if folder == "index":  # the packs know it all
        assert [type(item) for item in found] == [IndexDamaged]
        assert read_back(repository(backend), content, tmp_path) == DATA


def test_a_damaged_chunk_is_named_and_the_others_are_read(backend: MemoryBackend, content: Content) -> None:
    repo = repository(backend)
    chunk = list(content.ids())[3]
    place = repo.find(chunk)
    assert place is not None
    flip(backend, place.pack, 8 * (place.offset + place.stored // 2))
    with pytest.raises(ChunkDamaged, match=f"{chunk.hex()}.*from {place.offset} of {place.pack}"):
        repo.get(chunk)
    assert [type(found) for found in repo.verify(place.pack)] == [ChunkDamaged]
    for other in set(content.ids()) - {chunk}:
        repo.get(other)


@pytest.mark.parametrize("lost", [False, True])
def test_a_chunk_that_is_stored_twice_is_read_where_it_is_whole(
    backend: MemoryBackend, content: Content, tmp_path: Path, lost: bool
) -> None:
    """Two writers stored the same at once; every chunk of the first pack is then damaged, or it is gone."""
    first, behind = repository(backend), MemoryBackend()
    store(repository(behind), DATA[: len(DATA) // 2] + noise(50, 3))
    for name in names(behind, "packs") + names(behind, "index"):
        backend.put(name, behind.get(name))
    twice = [c for c in content.ids() if len(list(repository(backend)._catalog.copies(c))) == 2]  # pyright: ignore[reportPrivateUsage]
    assert twice and len(twice) < len(set(content.ids()))
    place = first.find(twice[0])
    assert place is not None
    if lost:
        backend.delete(place.pack)
    else:
        backend.put(place.pack, bytes(byte ^ 1 for byte in backend.get(place.pack)))
    for repo in (first, repository(backend)):
        for chunk in twice:
            assert repo.get(chunk)
        with pytest.raises(Damaged):
            read_back(repo, content, tmp_path)
        other = repository()  # it travels from there, too
        other.import_(repo.export(twice))
        assert not other.missing(twice)
        with pytest.raises(Damaged):
            list(repo.export(content.ids()))


def test_a_lost_index_is_made_again(backend: MemoryBackend, content: Content, tmp_path: Path) -> None:
    for name in names(backend, "index"):
        backend.delete(name)
    assert read_back(repository(backend), content, tmp_path) == DATA
    repo = repository(backend)
    assert repo.orphans() == names(backend, "packs")
    assert repo.heal()
    assert repo.orphans() == []
    assert repository(backend).missing(content.ids()) == set()


def test_what_was_taken_out_is_not_taken_in_again(
    backend: MemoryBackend, content: Content, tmp_path: Path
) -> None:
    """A pack that no index names, and one chunk of it is damaged."""
    for name in names(backend, "index"):
        backend.delete(name)
    (pack,) = names(backend, "packs")
    stored = next(repository(backend).export(list(content.ids())[:1]))  # reads it, for want of an index
    at = backend.get(pack).index(stored[36:])
    backend.put(pack, flipped(backend.get(pack), 8 * (at + 20)))
    repo = repository(backend)
    with pytest.raises(Damaged):
        read_back(repo, content, tmp_path)
    assert repo.missing(content.ids()) == set(content.ids()), "what is read so is not relied on"
    assert repo.heal()
    for known in (repo, repository(backend)):
        assert known.missing(content.ids()) == {stored[:32]}


@pytest.mark.parametrize("keep", [0, 1, 30, 100])
def test_a_torn_index_is_replaced(backend: MemoryBackend, content: Content, keep: int) -> None:
    (torn,) = names(backend, "index")
    backend.put(torn, backend.get(torn)[:keep])
    repo = repository(backend)
    assert [type(found) for found in repo.damage] == [IndexDamaged]
    assert repo.missing(content.ids()) == set()
    assert repo.orphans() == []  # what was taken in for it is no waste
    assert repo.heal()
    assert repo.damage == repository(backend).damage == []
    # the one made again is byte for byte the one that was, so it has its name and must not be removed
    assert names(backend, "index") == [torn]
    assert repository(backend).missing(content.ids()) == set()


def test_a_pack_that_is_gone_is_named(backend: MemoryBackend, content: Content, tmp_path: Path) -> None:
    (pack,) = names(backend, "packs")
    backend.delete(pack)
    repo = repository(backend)
    with pytest.raises(Damaged, match="no pack"):
        repo.read(content, tmp_path / "out")
    (found,) = repo.verify(pack)
    assert pack in str(found)


def test_a_damaged_piece_is_refused_on_import(backend: MemoryBackend, content: Content) -> None:
    other = repository()
    piece = next(repository(backend).export(content.ids()))
    for bit in (0, 8 * 33, 8 * 36, 8 * 60):
        with pytest.raises(ChunkDamaged):
            other.import_([flipped(piece, bit)])
    assert other.missing(content.ids()) == set(content.ids())


@pytest.mark.parametrize("what", [packs, index])
def test_another_format_is_refused_with_what_to_do(what: object, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = MemoryBackend()
    monkeypatch.setattr(what, "VERSION", 2)
    store(repository(newer), DATA)
    monkeypatch.undo()
    if what is packs:
        for name in names(newer, "index"):
            newer.delete(name)
    with pytest.raises(FormatUnknown, match=r"format 2.*reads 1.*newer"):
        Repository(newer).heal()


def test_an_object_that_is_no_pack_is_told(backend: MemoryBackend, content: Content) -> None:
    backend.put("packs/00/" + 64 * "0", b"something else")
    repo = repository(backend)
    repo.heal()
    assert any("packs/00/" in str(found) for found in repo.damage)
    with pytest.raises(ObjectMissing):
        backend.get("packs/11/none")
