"""The vault's store on real images: a DDP job of two ranks, 25 M parameters and Adam, suspended twice.

Held against `cp` of the same files to the same disk, and against restic (Debian's package: the one that is
installed, or one that is unpacked for the purpose). All that is compared is on disk when the clock stops:
ours and restic's by themselves, what `cp` wrote by a `sync` after it. Everything is read from the page cache,
as right after a dump, and the rivals take turns.

`python -m benchmarks.vault_store` prints the table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks._fleet import fleet, log, submit, wait
from benchmarks.registry import Skip, benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView
from midstep.vault.backends.local import LocalBackend
from midstep.vault.store.repository import Content, Repository

RUNS = 5
STEPS_BETWEEN = 5


@dataclass(slots=True)
class Figures:
    """Seconds, but for the sizes. Lists are runs; the same place in two lists is the same minute."""

    image_bytes: int = 0
    cp: list[float] = field(default_factory=list[float])
    new: list[float] = field(default_factory=list[float])
    known: list[float] = field(default_factory=list[float])
    second: list[float] = field(default_factory=list[float])  # the next snapshot, some steps later
    stored_bytes: int = 0  # by the first snapshot, and by the second besides
    second_bytes: int = 0
    read: list[float] = field(default_factory=list[float])
    restic_new: list[float] = field(default_factory=list[float])
    restic_second: list[float] = field(default_factory=list[float])
    restic_bytes: int = 0
    restic_second_bytes: int = 0
    no_restic: str = ""


@benchmark(
    "vault-ingest-new",
    bar=0.5,
    unit="x",
    against="`cp` and `sync` of the same images to the same disk",
    better="higher",
)
def ingest_new() -> list[float]:
    figures = measure()
    return [cp / ours for cp, ours in zip(figures.cp, figures.new)]


@benchmark(
    "vault-ingest-known",
    bar=3.0,
    unit="x",
    against="`cp` and `sync` of the same images to the same disk",
    better="higher",
)
def ingest_known() -> list[float]:
    figures = measure()
    return [cp / ours for cp, ours in zip(figures.cp, figures.known)]


@benchmark(
    "vault-against-restic", bar=1.0, unit="x", against="time of `restic backup` of the same two snapshots"
)
def against_restic() -> list[float]:
    figures = _with_restic()
    ours = [first + second for first, second in zip(figures.new, figures.second)]
    theirs = [first + second for first, second in zip(figures.restic_new, figures.restic_second)]
    return [a / b for a, b in zip(ours, theirs)]


@benchmark(
    "vault-size-restic", bar=1.1, unit="x", against="size of a restic repository with the same two snapshots"
)
def size_against_restic() -> list[float]:
    figures = _with_restic()
    ours = figures.stored_bytes + figures.second_bytes
    return [ours / (figures.restic_bytes + figures.restic_second_bytes)]


def _with_restic() -> Figures:
    figures = measure()
    if figures.no_restic:
        raise Skip(figures.no_restic)
    return figures


@cache
def measure() -> Figures:
    """All of it, once."""
    with tempfile.TemporaryDirectory(prefix="midstep-bench-") as folder:
        scratch = Path(folder)
        images = [scratch / "first", scratch / "second"]
        _make_images(images)
        figures = Figures(image_bytes=_size(images[0]))
        restic: Path | None = None
        try:
            restic = _find_restic(scratch)
        except Skip as why:
            figures.no_restic = str(why)
        for _ in range(RUNS):
            figures.cp.append(_copy(images[0], scratch / "copy"))
            _ours(figures, images, scratch)
            if restic:
                _restics(figures, restic, images, scratch / "restic-repository")
        return figures


def _make_images(folders: list[Path]) -> None:
    with fleet(devices=2) as client:
        words = ("--params", "large", "--optimizer", "adam", "--steps", "1000000", "--print-steps")
        job = submit(client, "ddp.py", *words, ranks=2)
        for number, folder in enumerate(folders, 1):
            _until_said(client, job, f"step {number * STEPS_BETWEEN} ")
            client.suspend(job.job_id)
            wait(client, job, "suspended")
            shutil.copytree(_raw_snapshot(job.job_id), folder, symlinks=True)
            if number < len(folders):
                client.resume(job.job_id)
                wait(client, job, "running")
        client.cancel(job.job_id)
    os.sync()


def _raw_snapshot(job_id: str) -> Path:
    """The folder of the job's newest committed snapshot; fleets of benchmarks keep their vaults there."""
    pattern = f"midstep-bench-*/vaults/*/snapshots/{job_id}-*/manifest.json"
    found = [path.parent for path in Path(tempfile.gettempdir()).glob(pattern)]
    whole = [path for path in found if path.suffix != ".partial"]
    return max(whole, key=lambda path: path.stat().st_mtime)


def _ours(figures: Figures, images: list[Path], scratch: Path) -> None:
    root, out = scratch / "repository", scratch / "out"
    first, second = ([path for path in sorted(folder.rglob("*")) if _is_file(path)] for folder in images)
    seconds, stored, contents = _ingest(root, first)
    figures.new.append(seconds)
    figures.stored_bytes = stored
    figures.known.append(_ingest(root, first)[0])
    out.mkdir()
    begun = time.perf_counter()
    Repository(LocalBackend(root)).read_many((c, out / str(number)) for number, c in enumerate(contents))
    figures.read.append(time.perf_counter() - begun)
    shutil.rmtree(out)
    os.sync()
    seconds, figures.second_bytes, _ = _ingest(root, second)
    figures.second.append(seconds)
    shutil.rmtree(root)
    os.sync()


def _ingest(root: Path, files: list[Path]) -> tuple[float, int, list[Content]]:
    """Seconds with opening the repository, bytes written, contents."""
    begun = time.perf_counter()
    with Repository(LocalBackend(root)).writer() as writer:
        contents = writer.add_files(files)
    return time.perf_counter() - begun, writer.finish().stored_bytes, contents


def _copy(source: Path, target: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(["cp", "--recursive", "--reflink=never", source, target], check=True)
    subprocess.run(["sync", "--file-system", target], check=True)
    took = time.perf_counter() - begun
    shutil.rmtree(target)
    os.sync()
    return took


def _restics(figures: Figures, restic: Path, images: list[Path], root: Path) -> None:
    def call(*words: str | Path) -> float:
        begun = time.perf_counter()
        env = {**os.environ, "RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(root)}
        done = subprocess.run([restic, "--no-cache", *words], env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-1000:])
        return time.perf_counter() - begun

    call("init")
    figures.restic_new.append(call("backup", images[0]))
    figures.restic_bytes = _size(root)
    figures.restic_second.append(call("backup", images[1]))
    figures.restic_second_bytes = _size(root) - figures.restic_bytes
    shutil.rmtree(root)
    os.sync()


def _find_restic(scratch: Path) -> Path:
    if here := shutil.which("restic"):
        return Path(here)
    folder = scratch / "restic"
    folder.mkdir()
    commands = ["apt-get download restic", "dpkg-deb -x restic_*.deb ."]
    done = subprocess.run(" && ".join(commands), shell=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"restic is not here and cannot be downloaded: {done.stderr.strip()[-200:]}")
    return folder / "usr" / "bin" / "restic"


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if _is_file(path))


def _until_said(client: FleetClient, job: JobView, words: str, bound_s: float = 180) -> None:
    end = time.monotonic() + bound_s
    while words not in log(client, job):
        if time.monotonic() > end:
            raise RuntimeError(f"{job.job_id} has not said {words!r} within {bound_s} s")
        time.sleep(0.2)


def main() -> None:
    """The table, with medians."""
    figures = measure()
    size = figures.image_bytes / 1e9
    print(f"images: {size:.2f} GB")
    for name in ("cp", "new", "known", "read", "second", "restic_new", "restic_second"):
        times: list[float] = getattr(figures, name)
        print(f"{name:14}", " ".join(f"{seconds:6.2f} s" for seconds in times))
    print(
        f"stored: first {figures.stored_bytes / 1e6:.0f} MB, second {figures.second_bytes / 1e6:.0f} MB more"
    )
    theirs = figures.restic_bytes / 1e6, figures.restic_second_bytes / 1e6
    print("restic: first {:.0f} MB, second {:.0f} MB more".format(*theirs), figures.no_restic)


if __name__ == "__main__":
    main()
