"""Real writer processes on a real folder, killed with SIGKILL at random instants, and two at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from midstep.vault.backends.local import LocalBackend
from midstep.vault.store.repository import Content, Repository, Span
from tests.vault.store.kit import MIB, noise, repository, text

# Stores numbered pieces one writer after the other and says which are finished, each with its content.
WRITER = """
import sys
from pathlib import Path
from midstep.vault.backends.local import LocalBackend
from midstep.vault.store.repository import Repository
root, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
repo = Repository(LocalBackend(root), workers=2, memory_bytes=32 << 20)
print("begun", flush=True)
for number in range(first, last):
    with repo.writer() as writer:
        content = writer.add_file(root.parent / f"piece-{number}")
    chunks = ",".join(f"{chunk.hex()}:{length}" for chunk, length, _ in content.spans)
    print(number, content.size, chunks, flush=True)
"""
PIECES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of 5 MiB, of which neighbours share a part."""
    path = tmp_path_factory.mktemp("pieces")
    for number in range(PIECES):
        data = noise(500, number) + text(300, number) + bytes(40 * 4096) + noise(480, number + 1)
        (path / f"piece-{number}").write_bytes(data)
    return path


def start(root: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), str(first), str(last)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


def finished(said: str) -> dict[int, Content]:
    """What a writer had told before it ended; a torn last line is not told."""
    found: dict[int, Content] = {}
    for line in said.splitlines(keepends=True):
        if line.endswith("\n"):
            number, size, chunks = line.split()
            pairs = (chunk.split(":") for chunk in chunks.split(","))
            found[int(number)] = Content(int(size), tuple(Span(bytes.fromhex(a), int(b)) for a, b in pairs))
    return found


def check(root: Path, pieces: Path, told: dict[int, Content], out: Path) -> None:
    """All that was told is there and right, and nothing is damaged."""
    repo = Repository(LocalBackend(root))
    assert repo.damage == []
    assert [found for pack in repo.packs() for found in repo.verify(pack.name)] == []
    repo.read_many((content, out / str(number)) for number, content in told.items())
    for number in told:
        assert (out / str(number)).read_bytes() == (pieces / f"piece-{number}").read_bytes()


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))]
)
def test_killed_at_any_instant_nothing_told_is_lost(folder: Path, tmp_path: Path, seed: int) -> None:
    root = folder / f"repository-{seed}"
    chance = random.Random(seed)
    told: dict[int, Content] = {}
    for _ in range(4):
        process = start(root, 0, PIECES)
        with suppress(subprocess.TimeoutExpired):  # or it was faster, which is as good
            process.wait(chance.uniform(0.001, 0.4))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        told |= finished(said)
        check(root, folder, told, tmp_path)
    said, _ = start(root, 0, PIECES).communicate()
    told = finished(said)
    assert sorted(told) == list(range(PIECES))
    check(root, folder, told, tmp_path)
    repo = Repository(LocalBackend(root))
    orphans = repo.orphans()
    repo.forget(orphans)  # what killed writers left behind is not needed by anybody
    assert repo.orphans() == []
    check(root, folder, told, tmp_path)


def test_two_writers_at_once(folder: Path, tmp_path: Path) -> None:
    root = folder / "shared"
    processes = [start(root, 0, 8), start(root, 4, PIECES)]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0
        check(root, folder, finished(said), tmp_path)


def test_a_reader_sees_what_a_writer_finished_meanwhile(folder: Path, tmp_path: Path) -> None:
    root = folder / "seen"
    reader = Repository(LocalBackend(root))
    with repository(LocalBackend(root)).writer() as writer:
        content = writer.add_file(folder / "piece-0")
    reader.read(content, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (folder / "piece-0").read_bytes()


# Peak of the process's own memory above what it has after the imports.
MEASURE = """
import os, resource, sys
from pathlib import Path
from midstep.vault.backends.local import LocalBackend
from midstep.vault.store.repository import Repository
root, path = Path(sys.argv[1]), Path(sys.argv[2])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
repo = Repository(LocalBackend(root), workers=4, memory_bytes=64 << 20)
before = peak()
with repo.writer() as writer:
    content = writer.add_file(path)
repo.read(content, path.with_name("out"))
print(peak() - before, content.size)
"""


@pytest.mark.parametrize("kind", ["noise", "text"])
def test_memory_is_bounded_whatever_the_size(tmp_path: Path, kind: str) -> None:
    with (tmp_path / "large").open("wb") as file:
        for number in range(40):  # 400 MiB
            file.write(noise(2560, number) if kind == "noise" else text(256, number) * 10)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "root"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    used, size = map(int, done.stdout.split())
    assert size == 400 * MIB
    assert used < 96 * MIB
    assert (tmp_path / "out").stat().st_size == size
