"""What goes in comes out, and only what is new is written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import BackendFull, ChunkMissing
from midstep.vault.store.repository import ZERO, Content, Progress, Repository
from tests.vault.store.kit import MIB, PAGE, all_ids, names, noise, read_back, repository, store, text

SIZES = [0, 1, 4095, 4096, 4097, 20_000, 300_000, 256 << 10, (256 << 10) + 1, 3 * MIB + 17]


def test_files_of_all_sizes_come_back(tmp_path: Path) -> None:
    wanted = {
        f"{kind.__name__}-{size}": kind(size // PAGE + 1, size)[:size]
        for size in SIZES
        for kind in (noise, text)
    }
    for name, data in wanted.items():
        (tmp_path / name).write_bytes(data)
    repo = repository()
    with repo.writer() as writer:
        found = writer.add_files([tmp_path / name for name in wanted])
    out = [tmp_path / f"{name}.out" for name in wanted]
    repo.read_many(zip(found, out))
    assert [path.read_bytes() for path in out] == list(wanted.values())
    assert [content.size for content in found] == [len(data) for data in wanted.values()]
    stats = writer.finish()
    assert stats.files == len(wanted)
    assert stats.total_bytes == sum(map(len, wanted.values()))
    assert stats.zero_bytes + stats.known_bytes + stats.new_bytes == stats.total_bytes


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["noise", "zeros", "hole"]), st.integers(0, 100), st.integers(0, 4095)),
        max_size=8,
    )
)
def test_holes_and_zeros_cost_nothing_and_stay_holes(
    tmp_path: Path, parts: list[tuple[str, int, int]]
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number, (kind, pages, more) in enumerate(parts):
            length = pages * PAGE + more
            if kind == "hole":
                file.seek(length, os.SEEK_CUR)
            else:
                file.write(bytes(length) if kind == "zeros" else noise(pages + 1, number)[:length])
        file.truncate(file.tell())
    repo = repository()
    with repo.writer() as writer:
        content = writer.add_file(path)
        again = writer.add_bytes(path.read_bytes())
    assert content == again
    assert all(one[0] != ZERO or two[0] != ZERO for one, two in zip(content.spans, content.spans[1:]))
    assert read_back(repo, content, tmp_path) == path.read_bytes()


def test_a_hole_of_a_terabyte_is_nothing(tmp_path: Path) -> None:
    path, size = tmp_path / "huge", 1 << 40
    with path.open("wb") as file:
        file.truncate(size)
        os.pwrite(file.fileno(), b"here", size // 2)
    repo = repository()
    with repo.writer() as writer:
        content = writer.add_file(path)
    assert content.size == size
    assert writer.finish().new_bytes < MIB
    repo.read(content, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size == size
    assert (tmp_path / "out").stat().st_blocks < 1024
    with (tmp_path / "out").open("rb") as file:
        assert os.pread(file.fileno(), 6, size // 2 - 1) == b"\0here\0"


def test_the_second_time_nothing_is_written() -> None:
    backend = MemoryBackend()
    data = noise(700, 1)
    first, stats = store(repository(backend), data)
    before = [info.name for info in backend.list()]
    second, more = store(repository(backend), data)
    assert first == second
    assert stats.new_bytes == len(data) == more.known_bytes
    assert (more.new_bytes, more.stored_bytes, more.packs) == (0, 0, 0)
    assert [info.name for info in backend.list()] == before


def test_equal_content_within_one_writer_is_stored_once() -> None:
    data = noise(700, 1)
    _, stats = store(repository(), data, data, noise(3, 9) + data)
    assert stats.new_bytes < len(data) * 1.2
    assert stats.known_bytes > len(data) * 1.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_memory_moved_by_pages_is_found_again(at: int, pages: int) -> None:
    backend, old = MemoryBackend(), noise(1000, 1)
    store(repository(backend), old)
    _, stats = store(repository(backend), old[: at * PAGE] + noise(pages, 2) + old[at * PAGE :])
    assert stats.new_bytes <= pages * PAGE + 2 * MIB


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 63))
def test_a_tensor_elsewhere_in_its_page_is_found_again(lines: int) -> None:
    backend, old = MemoryBackend(), noise(1000, 1)
    store(repository(backend), old)
    _, stats = store(repository(backend), noise(1, 2)[: 64 * lines] + old)
    assert stats.new_bytes <= MIB


def test_missing_says_what_is_not_there() -> None:
    backend = MemoryBackend()
    repo = repository(backend)
    (content,), _ = store(repo, noise(300, 1))
    other = b"\1" * 32
    assert repo.missing([*content.ids(), other, ZERO]) == {other}
    assert Repository(MemoryBackend()).missing(content.ids()) == set(content.ids())


def test_nothing_refers_to_what_an_abandoned_writer_stored(tmp_path: Path) -> None:
    backend = MemoryBackend()
    repo = repository(backend)
    with pytest.raises(KeyError), repo.writer() as writer:
        writer.add_bytes(noise(3000, 1))
        raise KeyError
    assert not names(backend, "index")
    (content,), stats = store(repository(backend), noise(3000, 1))
    assert stats.new_bytes == 3000 * PAGE
    assert read_back(repo, content, tmp_path) == noise(3000, 1)


class Full(MemoryBackend):
    """A disk with room for a few packs."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise BackendFull("no space left on memory")
        super().put(name, data)


@pytest.mark.parametrize("room", [0, MIB, 7 * MIB])
def test_a_full_disk_is_said_and_once_there_is_room_it_works(room: int, tmp_path: Path) -> None:
    backend, data = Full(room), noise(6000, 1)
    path = tmp_path / "in"
    path.write_bytes(data)
    with pytest.raises(BackendFull), repository(backend).writer() as writer:
        writer.add_file(path)
        writer.finish()
    backend.room = 100 * MIB
    repo = repository(backend)
    (content,), _ = store(repo, data)
    assert read_back(repo, content, tmp_path) == data


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), repository().writer() as writer:
        writer.add_file(tmp_path / "nowhere")


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(noise(3000, 1) + bytes(40 * PAGE))
    written: list[Progress] = []
    read: list[Progress] = []
    repo = repository()
    with repo.writer(written.append) as writer:
        content = writer.add_file(path)
    repo.read_many([(content, tmp_path / "out")], read.append)
    for said in (written, read):
        assert [item.done_bytes for item in said] == sorted(item.done_bytes for item in said)
        assert said[-1].done_bytes == said[-1].total_bytes == content.size
        assert len(said) > 3


def test_chunks_travel_between_repositories_in_stored_form(tmp_path: Path) -> None:
    here, there = repository(), repository()
    data = text(900, 1) + noise(900, 2)
    (content,), stats = store(here, data)
    part = noise(900, 2)
    store(there, part)
    wanted = there.missing(content.ids())
    pieces = list(here.export(wanted))
    assert sum(map(len, pieces)) < stats.new_bytes
    got = there.import_(pieces)
    assert got.new_chunks == len(wanted)
    assert read_back(there, content, tmp_path) == data
    assert there.import_(pieces).new_chunks == 0


def test_the_collector_moves_chunks_while_others_read(tmp_path: Path) -> None:
    backend = MemoryBackend()
    kept_data, lost_data = noise(1500, 1), noise(1500, 2)
    (kept, lost), _ = store(repository(backend), kept_data, lost_data)
    reader, collector = repository(backend), repository(backend)
    old = {pack.name for pack in collector.packs()}
    assert {stored.chunk for pack in collector.packs() for stored in pack.chunks} == all_ids([kept, lost])
    collector.repack(old, lambda it: it.chunk in all_ids([kept]))
    assert not old & set(names(backend, "packs"))
    assert read_back(reader, kept, tmp_path) == kept_data
    with pytest.raises(ChunkMissing):
        reader.read(lost, tmp_path / "lost")
    assert {stored.chunk for pack in repository(backend).packs() for stored in pack.chunks} == all_ids([kept])
    assert not collector.orphans()


def test_the_collector_moves_chunks_that_the_reader_itself_had_stored(tmp_path: Path) -> None:
    backend = MemoryBackend()
    reader = repository(backend)
    (wanted, doomed), _ = store(reader, noise(40, 1), noise(40, 2))
    collector = repository(backend)
    collector.repack(names(backend, "packs"), lambda it: it.chunk in all_ids([wanted]))
    assert read_back(reader, wanted, tmp_path) == noise(40, 1)
    with pytest.raises(ChunkMissing):
        read_back(reader, doomed, tmp_path)


def test_threads_share_a_repository(tmp_path: Path) -> None:
    repo, found = repository(), dict[int, Content]()

    def work(number: int) -> None:
        found[number] = store(repo, noise(600, number % 3))[0][0]
        assert read_back(repo, found[number], folders[number]) == noise(600, number % 3)

    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for number, content in found.items():
        assert read_back(repo, content, tmp_path) == noise(600, number % 3)
