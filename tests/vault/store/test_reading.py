"""Children that write what is read: with the same result, and whatever befalls them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from midstep.vault.backends.base import Buffer
from midstep.vault.backends.local import LocalBackend
from midstep.vault.errors import ChunkDamaged
from midstep.vault.store import loading, reading
from midstep.vault.store.content import Progress, Stored
from midstep.vault.store.loading import Loader
from midstep.vault.store.repository import Content, Repository
from tests.vault.store.kit import PAGE, flipped, noise, repository, store, text

DATA = [noise(900, 1) + bytes(64 * PAGE) + text(300, 2), text(500, 3), noise(700, 4) + b"the end"]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(reading, "APART", 0)
    return repository(LocalBackend(tmp_path / "repository"))


def read_back(repo: Repository, contents: Sequence[Content], folder: Path) -> list[bytes]:
    paths = [folder / str(number) for number in range(len(contents))]
    said: list[Progress] = []
    repo.read_many(zip(contents, paths), said.append)
    assert said[-1].done_bytes == said[-1].total_bytes
    return [path.read_bytes() for path in paths]


def test_children_write_it(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, _ = store(repo, *DATA)

    def here(loader: Loader, near: Sequence[Stored]) -> list[Buffer]:
        raise AssertionError("nothing is left to do here")

    monkeypatch.setattr(Loader, "load", here)
    assert read_back(repo, contents, tmp_path) == DATA


def test_what_a_killed_child_leaves_is_done_here(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, _ = store(repo, *DATA)
    us, plain_of = os.getpid(), loading.plain_of

    def killed(stored: Stored, form: memoryview) -> Buffer:
        if os.getpid() != us:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain_of(stored, form)

    monkeypatch.setattr(loading, "plain_of", killed)
    assert read_back(repo, contents, tmp_path) == DATA


def damage_a_chunk(folder: Path, chunk: Stored) -> None:
    path = folder / "repository" / chunk.pack
    path.write_bytes(flipped(path.read_bytes(), 8 * chunk.offset + 100))


def test_what_is_not_whole_is_read_where_else_it_is(repo: Repository, tmp_path: Path) -> None:
    other = Repository(LocalBackend(tmp_path / "repository"), workers=2)
    with repo.writer() as one, other.writer() as two:  # neither knows of the other: all is stored twice
        contents = [one.add_bytes(data) for data in DATA]
        for data in DATA:
            two.add_bytes(data)
    repo.refresh()
    found = repo.find(next(contents[0].ids()))
    assert found is not None
    damage_a_chunk(tmp_path, found)
    assert read_back(repo, contents, tmp_path) == DATA


def test_what_is_whole_nowhere_is_said(repo: Repository, tmp_path: Path) -> None:
    contents, _ = store(repo, *DATA)
    found = repo.find(next(contents[0].ids()))
    assert found is not None
    damage_a_chunk(tmp_path, found)
    with pytest.raises(ChunkDamaged, match=found.chunk.hex()):
        read_back(repo, contents, tmp_path)


def test_a_full_disk_is_said(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, _ = store(repo, *DATA)

    def full(descriptor: int, run: Sequence[Buffer], at: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading, "_write_all", full)
    with pytest.raises(OSError, match="No space left"):
        read_back(repo, contents, tmp_path)
