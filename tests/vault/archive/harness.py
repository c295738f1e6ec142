"""Raw snapshots of made-up jobs, archives over folders, and the archiver as a process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from midstep.env import Clock, Ids, RealClock
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.manifest import ArchivedSnapshot
from midstep.vault.archive.orders import News, Orders, news_of, to_json
from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.backends.local import LocalBackend
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.snapshots import Manifest, Part, Snapshots

SOURCE = Path(__file__).parents[3] / "src"
PAGE = 4096


def pages(chance: Random, count: int) -> bytes:
    """Memory: pages that zstd cannot make smaller, some zeros among them."""
    return b"".join(bytes(PAGE) if chance.random() < 0.1 else chance.randbytes(PAGE) for _ in range(count))


def write_raw(
    vault: Snapshots,
    snapshot_id: str,
    seed: int,
    *,
    ranks: int = 2,
    memory: bytes | None = None,
    mib: int = 2,
) -> Manifest:
    """A committed snapshot: ``ranks`` images of ``mib`` MiB, that share ``memory``; one home."""
    chance = Random(seed)
    stage = vault.stage(snapshot_id)
    for rank in range(ranks):
        folder = stage / f"rank-{rank}"
        folder.mkdir()
        own = pages(chance, mib * 256)
        (folder / "pages-1.img").write_bytes((memory or b"") + own)
        (folder / "core-1.img").write_bytes(chance.randbytes(3000))
    home = stage / "home-0"
    for name in ("work", "logs", "tmp"):
        (home / name).mkdir(parents=True)
    for rank in range(ranks):
        (home / "logs" / f"rank-{rank}.log").write_bytes(b"line\n" * chance.randrange(100))
    (home / "work" / "out.txt").write_bytes(chance.randbytes(chance.randrange(10_000)))
    os.symlink("out.txt", home / "work" / "link")
    files = {
        str(path.relative_to(stage)): path.stat().st_size
        for path in sorted(stage.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    part = Part(0, tuple(range(ranks)), (0,), sum(files.values()), files, {"stopped_before": {"0": [3]}})
    vault.put_part(snapshot_id, part)
    epoch = int(snapshot_id.rpartition("-")[2].partition(".")[0])
    return vault.commit(snapshot_id, snapshot_id.rpartition("-")[0], epoch, 1, {"key": "dg=="})


def contents(folder: Path) -> dict[str, object]:
    """What a program could tell apart, by path; without our own notes at the top."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.parent == folder and path.suffix == ".json":
            continue
        info = path.lstat()
        data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            data,
        )
    return found


def archive_at(backend: Backend | Path, clock: Clock | None = None, seed: int = 0) -> Archive:
    """An archive; ids from a seed that every call changes."""
    where = LocalBackend(backend) if isinstance(backend, Path) else backend
    ids = Ids(random.Random(seed or random.getrandbits(64)))
    return Archive(where, clock or RealClock(), ids)


def store(vault: Snapshots, archive: Archive, snapshot_id: str, generation: int = 1) -> ArchivedSnapshot:
    """In this process."""
    return archive.store(vault.path(snapshot_id), vault.manifest(snapshot_id), generation, reason="test")


def archiver(vault: Snapshots, orders: Orders | list[str], crash_at: str = "") -> tuple[int, list[News]]:
    """The process; its exit code and what it said."""
    words = [sys.executable, "-m", "midstep.app.archiver", "--eager", "--vault", str(vault.root)]
    words += ["--crash-at", crash_at]
    by_hand = isinstance(orders, list)
    done = subprocess.run(
        [*words, *(orders if by_hand else ())],
        input="" if by_hand else to_json(orders) + "\n",
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, [news_of(line) for line in done.stdout.splitlines()]


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{SOURCE.parent}"},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


class AtOnce(MemoryBackend):
    """Something is done just before an index is written, whose writer knows nothing of it."""

    work: Callable[[], object] | None = None

    def put(self, name: str, data: Buffer) -> None:
        if name.startswith("index/") and (work := self.work):
            self.work = None
            work()
        super().put(name, data)


def objects(folder: Path) -> Iterator[Path]:
    """Every object of an archive in a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def two_snapshots(root: Path, name: str) -> Path:
    """In this folder an archive of that name with two snapshots that share nothing, and their raw vault."""
    vault = Snapshots(root / "vault")
    archive = archive_at(root / name)
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number, ranks=1, mib=1)
        store(vault, archive, f"j-{number}")
    return root
