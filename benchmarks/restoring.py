"""What restoring a rank from the vault's archive costs over CRIU from images that lie in a folder.

The same training script runs twice, as in suspend.py: as a rank, whose images are archived and removed, and
bare, restored by the command line of CRIU from its own images. Ours reads the chunks, verifies each, writes
the images and restores them. Both read from and write into memory: how fast the disk of this machine is, is
not the question. (Within its region a job is restored from the plain folder, which `resume` measures.)
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.registry import benchmark
from benchmarks.suspend import RUNS, Bare, Rank, scratch_folder
from midstep.vault.backends.local import LocalBackend
from midstep.vault.store.repository import Content, Repository


@benchmark(
    "restore-rank",
    bar=0.7,
    unit="x",
    against="raw `criu restore` from local images: its time over ours, archive to running rank",
    better="higher",
)
def restore_rank() -> list[float]:
    with scratch_folder() as scratch:
        rank, bare = Rank(scratch / "rank"), Bare(scratch / "bare")
        try:
            rank.start()
            bare.start()
            found: list[float] = []
            for _ in range(RUNS + 1):
                with bare.paused():
                    rank.dump()
                bare.dump()
                archive, files = _archived(rank.images, scratch / "archive")
                raw_s = bare.restore()
                with bare.paused():
                    begun = time.perf_counter()
                    rank.images.mkdir()
                    archive.read_many((content, rank.images / name) for name, content in files.items())
                    ours_s = time.perf_counter() - begun + rank.restore()
                found.append(raw_s / ours_s)
            return found[1:]
        finally:
            rank.end()
            bare.end()


def _archived(images: Path, folder: Path) -> tuple[Repository, dict[str, Content]]:
    """Put the images into a new archive, and remove them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with Repository(LocalBackend(folder)).writer() as writer:
        paths = sorted(path for path in images.iterdir() if path.is_file())
        files = {path.name: content for path, content in zip(paths, writer.add_files(paths), strict=True)}
        writer.finish()
    shutil.rmtree(images)
    return Repository(LocalBackend(folder)), files
