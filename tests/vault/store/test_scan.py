"""A large file is looked through by a process of its own: with the same result, and whatever befalls it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.store import scan as scanning
from midstep.vault.store import writing
from midstep.vault.store.scan import Chunks, scan, scan_apart
from tests.vault.store.kit import MIB, PAGE, names, noise, read_back, repository, text

Look = Callable[[int, int, Path], Iterator[Chunks]]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(noise(700, 1) + bytes(40 * PAGE) + text(300, 2) + b"the end")
    with path.open("r+b") as file:
        file.truncate(6 * MIB)
    return path


def looked_through(path: Path, look: Look = scan_apart) -> list[Chunks]:
    with path.open("rb") as file:
        return list(look(file.fileno(), path.stat().st_size, path))


def test_it_finds_what_is_found_here(large: Path) -> None:
    here = [chunk for some in looked_through(large, scan) for chunk in some]
    assert [chunk for some in looked_through(large) for chunk in some] == here
    assert sum(length for _, length in here) == 6 * MIB


def test_what_is_stored_comes_back(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = repository()
    with repo.writer() as writer:
        content = writer.add_file(large)
    monkeypatch.setattr(writing, "APART", 0)
    with repo.writer() as writer:
        assert writer.add_file(large) == content
    assert writer.finish().new_bytes == 0
    fresh = repository()
    with fresh.writer() as writer:
        assert writer.add_files([large, large]) == [content, content]
    assert writer.finish().stored_bytes < large.stat().st_size
    assert read_back(fresh, content, tmp_path) == large.read_bytes()


def test_who_is_killed_is_missed(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
        yield Chunks()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(scanning, "scan", killed)
    with pytest.raises(OSError, match="large was not read to its end"):
        looked_through(large)


def test_what_goes_wrong_there_is_raised_here(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
        yield Chunks()
        raise OSError(errno.EIO, f"{path} became shorter")

    monkeypatch.setattr(scanning, "scan", fails)
    with pytest.raises(OSError, match="became shorter") as caught:
        looked_through(large)
    assert caught.value.errno == errno.EIO


def test_it_ends_with_the_iterator_and_holds_nothing(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
        yield [(b"", os.getpid())]
        signal.pause()

    monkeypatch.setattr(scanning, "scan", waits)
    with large.open("rb") as file:
        locked = os.open(large, os.O_RDONLY)
        fcntl.flock(locked, fcntl.LOCK_EX)
        looking = iter(scan_apart(file.fileno(), 6 * MIB, large))
        [(_, pid)] = next(looking)
        assert Path(f"/proc/{pid}").exists()
        os.close(locked)
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        del looking
    assert not Path(f"/proc/{pid}").exists()


def test_a_file_that_changes_meanwhile_is_not_stored(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(descriptor: int, size: int, path: Path) -> Iterator[Chunks]:
        found = list(scan(descriptor, size, path))
        large.write_bytes(noise(6 * MIB // PAGE, 3))
        yield from found

    monkeypatch.setattr(writing, "scan", late)
    backend = MemoryBackend()
    with pytest.raises(OSError, match="large was changed while it was read"):
        with repository(backend).writer() as writer:
            writer.add_file(large)
    assert not names(backend, "index")
