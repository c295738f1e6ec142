"""Kinds of jobs through the whole service: each is suspended, resumed and migrated to the other region in the
middle of its work; it prints, and leaves as files, what it does when nobody disturbs it.

Buys: that the runtime, CRIU and the cell together carry what real programs are made of. The programs are in
`kinds/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.harness import Fleet

KINDS = Path(__file__).parent / "kinds"


@dataclass(frozen=True)
class Kind:
    """A command, how many ranks and devices it gets, and how to run it without Midstep (None: not at all, the
    order of sums of more than two ranks differs there)."""

    name: str
    command: tuple[str, ...]
    fields: tuple[tuple[str, object], ...] = ()
    plain: tuple[str, ...] | None = ()

    def undisturbed(self, folder: Path) -> subprocess.Popen[str] | None:
        """Start it without Midstep, in a copy of the folder."""
        if self.plain is None:
            return None
        bin_folder = Path(sys.executable).parent
        env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        shutil.copytree(KINDS, folder)
        pipe = subprocess.PIPE
        command = self.plain or self.command
        return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def by_torchrun(script: str) -> tuple[str, ...]:
    """What the launchers are compared with."""
    return ("torchrun", "--standalone", "--nproc-per-node=2", script)


KINDS_OF_JOBS = [
    Kind("shell pipeline", ("./pipeline.sh",)),
    Kind("tree of processes", ("python", "tree.py")),
    Kind("threads", ("python", "threads.py")),
    Kind("files", ("python", "files.py")),
    Kind("pool and manager", ("python", "pool.py")),
]
RARER = [  # or in other tests of this folder, as jobs of several ranks are
    Kind("torchrun", ("torchrun", "--nproc-per-node=2", "train.py"), plain=by_torchrun("train.py")),
    Kind("3 ranks on 2 nodes", ("python", "sums.py"), (("devices", 3),), plain=None),
    Kind("loader", ("python", "loader.py")),
    Kind("loader that stays", ("python", "loader.py", "keep")),
    Kind("spawn, tcp", ("python", "spawned.py", "tcp")),
    Kind("spawn, file", ("python", "spawned.py", "file")),
    Kind(
        "module",
        ("python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "sums.py"),
        plain=by_torchrun("sums.py"),
    ),
    Kind(
        "accelerate",
        ("accelerate", "launch", "--cpu", "--num_processes", "2", "train.py"),
        plain=by_torchrun("train.py"),
    ),
]
CASES = KINDS_OF_JOBS + [pytest.param(kind, marks=pytest.mark.soak) for kind in RARER]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.name.replace(" ", "-"))
def test_moved_and_the_same(fleet: Fleet, tmp_path: Path, kind: Kind) -> None:
    plain = kind.undisturbed(tmp_path / "plain")
    job = fleet.run(*kind.command, files=KINDS, region="north", name=kind.name, **dict(kind.fields))
    fleet.until_logs(job, "step 3 ")
    fleet.suspend(job)
    fleet.resume(job)
    fleet.until_logs(job, "step 12 ")
    fleet.migrate(job, "south")
    fleet.wait(job, "completed")
    out = fleet.logs(job)
    if plain is None:
        again = fleet.run(*kind.command, files=KINDS, **dict(kind.fields))
        fleet.wait(again, "completed")
        assert out == fleet.logs(again)
        assert "step 59 " in out
        return
    expected, complaint = plain.communicate(timeout=60)
    assert plain.returncode == 0, complaint
    assert out == expected
    pulled = tmp_path / "pulled"
    done = fleet.cli("pull", job.job_id, str(pulled))
    assert done.returncode == 0, done.stderr
    assert contents(pulled) == contents(tmp_path / "plain")


def contents(folder: Path) -> dict[str, bytes | str]:
    """All files and links below a folder."""
    files = [p for p in folder.rglob("*") if p.is_symlink() or p.is_file()]
    paths = [p for p in files if "__pycache__" not in p.parts and p.name != "meet"]
    return {str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes() for p in paths}
