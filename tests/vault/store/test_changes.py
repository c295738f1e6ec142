"""What was there a step ago is not stored again: parts of chunks.

Buys: the second snapshot of a job costs what has changed, whatever has; and what is referred to is exactly
what is read back, however content was moved about, and whatever of the old is lost.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import ChunkDamaged
from midstep.vault.store import changes
from midstep.vault.store.changes import Found, find
from midstep.vault.store.content import ChunkId
from midstep.vault.store.repository import Content, Repository, Span, Stats
from tests.vault.store.kit import MIB, PAGE, flipped, names, noise, repository, text

LINE = 64
Chunks = list[tuple[ChunkId, bytes]]


def chunk(data: bytes) -> tuple[ChunkId, bytes]:
    return blake3(data).digest(), data


def heap(pages: int, seed: int) -> bytes:
    """Small objects: mostly zeros, no two lines alike."""
    words = np.random.default_rng(seed).integers(0, 2**24, (pages * PAGE // 8,), np.uint64)
    words[1::2] = 0
    return words.tobytes()


def poked(data: bytes, count: int, seed: int) -> bytes:
    """Eight bytes changed, here and there."""
    chance, changed = Random(seed), bytearray(data)
    for _ in range(count):
        at = chance.randrange(len(data) // 8) * 8
        changed[at : at + 8] = chance.randbytes(8)
    return bytes(changed)


def put_together(found: Found, old: Chunks, new: Chunks) -> None:
    """Every new chunk out of what is said of it, from chunks that are there or are stored."""
    there = {
        **dict(old),
        **{name: data for name, data in new if name not in found.spans},
        **dict(found.gathered),
    }
    for name, data in new:
        spans = found.spans.get(name, (Span(name, len(data)),))
        parts = (there[it.chunk][it.offset or 0 :][: it.length] for it in spans)
        assert b"".join(parts) == data
        assert sum(it.length for it in spans) == len(data)


def stored(found: Found, new: Chunks) -> int:
    whole = sum(len(data) for name, data in new if name not in found.spans)
    return whole + sum(len(data) for _, data in found.gathered)


def test_a_change_costs_a_few_lines() -> None:
    old = [chunk(heap(5, seed)) for seed in range(20)]
    new = [chunk(poked(data, 3, seed)) for seed, (_, data) in enumerate(old)]
    found = find(old, new)
    put_together(found, old, new)
    assert len(found.spans) == 20 and stored(found, new) <= 20 * 3 * 2 * LINE  # and short runs between two


def test_what_moved_is_found_wherever_it_is() -> None:
    old = [chunk(noise(20, 1)), chunk(noise(20, 2))]
    moved = old[1][1][7 * LINE :] + old[0][1][: 30 * PAGE + 7 * LINE]
    new = [chunk(moved[: len(moved) // LINE * LINE])]
    found = find(old, new)
    put_together(found, old, new)
    assert stored(found, new) == 0


def test_what_is_new_twice_is_stored_once() -> None:
    tensor = noise(10, 5)
    new = [chunk(noise(1, 6) + tensor), chunk(tensor[LINE:] + noise(1, 7))]
    found = find([], new)
    put_together(found, [], new)
    assert stored(found, new) < 13 * PAGE


def test_what_has_little_of_the_old_is_stored_whole_and_known_by_its_id() -> None:
    old = [chunk(noise(10, 1))]
    new = [chunk(noise(9, 2) + old[0][1][:PAGE])]
    assert find(old, new) == Found({}, [])


def test_an_old_chunk_is_not_kept_for_a_small_part_of_it() -> None:
    old = [chunk(noise(64, 1))]
    new = [chunk(old[0][1][: 4 * PAGE])]
    assert find(old, new) == Found({}, [])


def test_lines_that_only_hash_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_hashes", lambda lines: lines[:, 0] % np.uint64(3))  # pyright: ignore
    old = [chunk(noise(4, 1)), chunk(text(4, 2))]
    new = [chunk(poked(data, 4, 3)) for _, data in old]
    put_together(find(old, new), old, new)


PIECES = [
    noise(1, 1)[:640],
    heap(1, 2)[:1280],
    bytes(1024),
    noise(1, 3)[:64],
    text(1, 4)[:4032],
    b"abcdefgh" * 64,
]
contents = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map(b"".join)


@settings(deadline=None)
@given(st.lists(contents, max_size=6), st.lists(contents, min_size=1, max_size=6))
def test_whatever_is_put_together_is_what_was_there(before: list[bytes], after: list[bytes]) -> None:
    old = list(dict(map(chunk, before)).items())
    new = list({name: data for name, data in map(chunk, after) if name not in dict(old)}.items())
    if new:
        put_together(find(old, new), old, new)


# Through a repository


def store(into: Repository, path: Path, data: bytes, before: Content | None) -> tuple[Content, Stats]:
    path.write_bytes(data)
    with into.writer() as writer:
        [content] = writer.add_files([path], [before])
    return content, writer.finish()


def assert_read_back(repo: Repository, content: Content, data: bytes, folder: Path) -> None:
    repo.read(content, folder / "back")
    assert (folder / "back").read_bytes() == data


def test_a_second_snapshot_costs_what_changed_and_a_third_does_too(tmp_path: Path) -> None:
    repo, data = repository(), heap(1024, 1) + noise(512, 1)
    content, first = store(repo, tmp_path / "file", data, None)
    for number in range(2, 6):
        data = poked(data, 100, number)
        content, stats = store(repo, tmp_path / "file", data, content)
        assert content.in_parts and stats.stored_bytes < 0.02 * first.stored_bytes
        assert stats.total_bytes == len(data) == stats.zero_bytes + stats.known_bytes + stats.new_bytes
        assert_read_back(repo, content, data, tmp_path)


def test_without_the_old_content_nothing_is_in_parts(tmp_path: Path) -> None:
    repo, data = repository(), heap(256, 1)
    store(repo, tmp_path / "file", data, None)
    content, _ = store(repo, tmp_path / "file", poked(data, 50, 2), None)
    assert not content.in_parts


def test_replicas_store_what_changed_in_all_of_them_once(tmp_path: Path) -> None:
    repo = repository()
    paths = [tmp_path / "rank-0", tmp_path / "rank-1"]
    heaps, tensors = [heap(300, 1), heap(300, 2)], [noise(100, 3), noise(100, 4)]

    def add(tensor: bytes, before: list[Content]) -> tuple[list[Content], Stats]:
        for number, path in enumerate(paths):  # elsewhere within a page, in each
            path.write_bytes(heaps[number] + bytes(LINE * number) + tensor + bytes(PAGE - LINE * number))
        with repo.writer() as writer:
            found = writer.add_files(paths, before)
        return found, writer.finish()

    before, _ = add(tensors[0], [])
    _, stats = add(tensors[1], before)
    assert stats.new_bytes < 1.1 * len(tensors[1])


def test_more_than_memory_allows_is_stored_as_ever(tmp_path: Path) -> None:
    repo, data = repository(), heap(5 * MIB // PAGE, 1) + noise(12 * MIB // PAGE, 1)
    content, _ = store(repo, tmp_path / "file", data, None)
    data = poked(data, 3000, 2)  # 8 MiB are looked at
    content, _ = store(repo, tmp_path / "file", data, content)
    assert_read_back(repo, content, data, tmp_path)


def test_what_is_lost_of_the_old_is_stored_again_under_its_id(tmp_path: Path) -> None:
    """So what was mended makes older snapshots whole, too."""
    backend = MemoryBackend()
    repo, data = repository(backend), heap(256, 1)
    content, _ = store(repo, tmp_path / "file", data, None)
    repo.forget([pack.name for pack in repo.packs()])
    again, _ = store(repo, tmp_path / "file", data, content)
    assert again == content
    assert_read_back(repo, content, data, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_some_is_lost_and_some_has_changed(seed: int, tmp_path: Path) -> None:
    chance = Random(seed)
    repo, data = repository(), b"".join(heap(100, n) + noise(200, n) for n in range(8))
    content, _ = store(repo, tmp_path / "file", data, None)
    packs = [pack.name for pack in repo.packs()]
    repo.forget(chance.sample(packs, 2))
    for pages in (1, 2200):  # a short run, and one that is too long to be kept back
        data = poked(data, 30, seed)
        at = chance.randrange(len(data) // PAGE - pages) * PAGE
        data = data[:at] + noise(pages, seed) + data[at + pages * PAGE :]
        content, _ = store(repo, tmp_path / "file", data, content)
        assert_read_back(repo, content, data, tmp_path)


def test_what_is_lost_lies_within_a_long_run(tmp_path: Path) -> None:
    repo, middle = repository(), noise(200, 1)
    content, _ = store(repo, tmp_path / "file", noise(1900, 2) + middle + noise(300, 3), None)
    repo.forget([pack.name for pack in repo.packs()])
    data = noise(1900, 4) + middle + noise(300, 5)
    content, _ = store(repo, tmp_path / "file", data, content)
    assert_read_back(repo, content, data, tmp_path)


def test_nothing_relies_on_old_chunks_that_are_damaged(tmp_path: Path) -> None:
    backend = MemoryBackend()
    repo, data = repository(backend), noise(256, 1)
    content, _ = store(repo, tmp_path / "file", data, None)
    for name in names(backend, "packs"):
        whole = backend.get(name)
        backend.delete(name)
        backend.put(name, flipped(whole, 4 * len(whole)))
    changed = poked(data, 200, 2)
    second, _ = store(repo, tmp_path / "file", changed, content)
    ids = {it.chunk for it in second.spans if it.offset is not None}
    assert not ids & {
        stored.chunk for pack in repo.packs() for stored in pack.chunks if repo_lost(repo, stored.chunk)
    }


def repo_lost(repo: Repository, name: ChunkId) -> bool:
    try:
        repo.get(name)
    except ChunkDamaged:
        return True
    return False


def test_a_part_that_no_chunk_has_is_not_read(tmp_path: Path) -> None:
    repo = repository()
    content, _ = store(repo, tmp_path / "file", noise(80, 1), None)
    first = content.spans[0]
    for wrong in (Span(first.chunk, 64, first.length), Span(first.chunk, first.length - 64)):
        with pytest.raises(ChunkDamaged, match="what refers to it is wrong"):
            repo.read(Content(wrong.length, (wrong,)), tmp_path / "back")
