"""The conformance suite: what base.py promises, of every backend, bare and under every decorator."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from midstep.vault.backends.base import Backend, ObjectInfo
from midstep.vault.errors import BackendUnreachable, ObjectExists, ObjectMissing, ObjectTorn
from tests.vault.backends.kit import noise


@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 300_000])
def test_what_was_put_is_got(backend: Backend, size: int) -> None:
    backend.put("packs/3f/object", noise(size))
    assert backend.get("packs/3f/object") == noise(size)
    assert backend.size("packs/3f/object") == size
    assert list(backend.list()) == [ObjectInfo("packs/3f/object", size)]


def test_any_buffer_is_stored(backend: Backend) -> None:
    backend.put("a", bytearray(b"abc"))
    backend.create("b", memoryview(b"0123456789")[2:5])
    backend.put("c", memoryview(b"0123456789")[::3])
    assert (backend.get("a"), backend.get("b"), backend.get("c")) == (b"abc", b"234", b"0369")


def test_a_kept_buffer_may_change_afterwards(backend: Backend) -> None:
    data = bytearray(b"before")
    backend.put("a", data)
    data[:] = b"AFTER!"
    assert backend.get("a") == b"before"


def test_put_again_replaces(backend: Backend) -> None:
    backend.put("a", noise(200_000))
    assert backend.get("a", 100_000, 10) == noise(200_000)[100_000:100_010]
    backend.put("a", b"new")
    assert (backend.get("a"), backend.size("a"), backend.get("a", 1, 2)) == (b"new", 3, b"ew")


def test_create_keeps_what_is_there(backend: Backend) -> None:
    backend.create("fences/job", b"first")
    with pytest.raises(ObjectExists, match="fences/job"):
        backend.create("fences/job", b"second")
    with pytest.raises(ObjectExists):
        backend.create("fences/job", b"first")
    assert backend.get("fences/job") == b"first"
    backend.put("fences/job", b"put")
    with pytest.raises(ObjectExists):
        backend.create("fences/job", b"second")


def test_create_after_delete(backend: Backend) -> None:
    backend.create("a", b"first")
    backend.delete("a")
    backend.create("a", b"second")
    assert backend.get("a") == b"second"


@pytest.mark.parametrize("start", [0, 1, 65_535, 65_536, 65_537, 131_072, 199_999, 200_000])
def test_ranges(backend: Backend, start: int) -> None:
    data = noise(200_000)
    backend.put("a", data)
    assert backend.get("a", start) == data[start:]
    for length in (0, 1, 100, 65_536, 65_537, 200_000 - start):
        if start + length <= len(data):
            assert backend.get("a", start, length) == data[start : start + length]


@pytest.mark.parametrize(("start", "length"), [(0, 11), (5, 6), (10, 1), (11, 0), (11, None), (400, 3)])
def test_a_range_past_the_end_is_torn(backend: Backend, start: int, length: int | None) -> None:
    backend.put("a", b"0123456789")
    with pytest.raises(ObjectTorn, match=r"a has \d+ bytes"):
        backend.get("a", start, length)


def test_a_range_cannot_be_negative(backend: Backend) -> None:
    backend.put("a", b"0123456789")
    for start, length in ((-1, 1), (1, -1)):
        with pytest.raises(ValueError, match="no such range"):
            backend.get("a", start, length)


def test_missing(backend: Backend) -> None:
    backend.put("other", b"x")
    with pytest.raises(ObjectMissing, match="packs/a"):
        backend.get("packs/a")
    with pytest.raises(ObjectMissing, match="packs/a"):
        backend.get("packs/a", 3, 4)
    with pytest.raises(ObjectMissing, match="packs/a"):
        backend.get("packs/a", 0, 0)
    with pytest.raises(ObjectMissing, match="packs/a"):
        backend.size("packs/a")


def test_delete(backend: Backend) -> None:
    backend.put("packs/a", b"x")
    backend.put("packs/b", b"y")
    assert backend.get("packs/a", 0, 1) == b"x"
    backend.delete("packs/a")
    backend.delete("packs/a")
    backend.delete("never/was")
    with pytest.raises(ObjectMissing):
        backend.get("packs/a")
    with pytest.raises(ObjectMissing):
        backend.get("packs/a", 0, 1)
    assert [info.name for info in backend.list()] == ["packs/b"]


def test_list_is_ordered_and_by_folder(backend: Backend) -> None:
    names = ["packs/b/2", "packs/b/1", "packs-old", "packs/a", "index/z", "packs2/x", "packs/B", "packs/b-1"]
    for name in names:
        backend.put(name, name.encode())
    assert list(backend.list()) == [ObjectInfo(name, len(name)) for name in sorted(names)]
    packs = ["packs/B", "packs/a", "packs/b-1", "packs/b/1", "packs/b/2"]
    assert [info.name for info in backend.list("packs")] == packs
    assert [info.name for info in backend.list("packs/")] == packs
    assert [info.name for info in backend.list("packs/b/")] == ["packs/b/1", "packs/b/2"]
    assert list(backend.list("pack")) == list(backend.list("nothing/here")) == []


def test_nothing_is_there_at_first(backend: Backend) -> None:
    assert list(backend.list()) == []


NO_NAMES = ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.tmp", "a b", "ä", "a\n", "a" * 513]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused(backend: Backend, name: str) -> None:
    for use in (backend.get, backend.size, backend.delete):
        with pytest.raises(ValueError, match="no name of an object"):
            use(name)
    for write in (backend.put, backend.create):
        with pytest.raises(ValueError, match="no name of an object"):
            write(name, b"x")


def test_of_many_creators_one_succeeds(backend: Backend) -> None:
    start = threading.Barrier(8)

    def compete(number: int) -> int | None:
        start.wait()
        try:
            backend.create("fences/job", f"owner {number}".encode())
            return number
        except ObjectExists:
            return None

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(compete, range(8)) if number is not None]
    assert len(winners) == 1
    assert backend.get("fences/job") == f"owner {winners[0]}".encode()


def test_readers_see_one_version_whole(backend: Backend) -> None:
    versions = [bytes([value]) * size for value, size in ((1, 200_000), (2, 70_000), (3, 150_000))]
    backend.put("a", versions[0])
    done = threading.Event()
    halves: list[str] = []

    def read_once() -> None:
        if (whole := backend.get("a")) not in versions:
            halves.append(f"whole: {len(whole)} bytes of {sorted(set(whole))}")
        part = backend.get("a", 60_000, 10_000)
        if len(part) != 10_000 or len(set(part)) != 1:
            halves.append(f"range: {len(part)} bytes of {sorted(set(part))}")

    def read() -> int:
        reads = 0
        while not done.is_set() or not reads:
            with contextlib.suppress(
                BackendUnreachable
            ):  # moto answers 500 if it replaces what it is sending
                read_once()
                reads += 1
        return reads

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for turn in range(15):
            backend.put("a", versions[turn % 3])
        done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert halves == []


def test_threads_do_not_disturb_each_other(backend: Backend) -> None:
    def work(number: int) -> bool:
        name, data = f"packs/{number % 4}/{number}", noise(20_000 + number, seed=number)
        backend.put(name, data)
        return backend.get(name) == data and backend.get(name, 5, 9) == data[5:14]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(32)))
    assert len(list(backend.list("packs"))) == 32
