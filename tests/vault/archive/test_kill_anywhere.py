"""`midstep vault cp`, `gc` and `check --mend` killed (-9) before each of their writes in turn, run again each
time: nothing is lost, and in the end nothing is there twice. Buys: the order of their writes, whatever it
becomes, without a named point in the code."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from midstep.vault.archive import gc
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import Grade, check, damaged_snapshots
from midstep.vault.archive.copying import copy
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import (
    archive_at,
    contents,
    flip,
    objects,
    pages,
    python,
    store,
    two_snapshots,
    write_raw,
)

KILLED = -signal.SIGKILL
_LONGEST = 60  # no command here writes so often

_COMMAND = """
import itertools, json, os, signal, sys
from midstep.app import vault
from midstep.vault.backends.local import LocalBackend

writes, last = itertools.count(1), int(sys.argv[1])

def counted(method):
    def write(self, *words):
        if next(writes) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *words)
    return write

for name in ("put", "create", "delete"):
    setattr(LocalBackend, name, counted(getattr(LocalBackend, name)))
sys.argv[1:2] = []
vault.main()
"""


def command(writes: int, verb: str, url: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Of `midstep vault`, killed instead of its write of that number; 0: never."""
    return python(_COMMAND, str(writes), verb, json.dumps({"vault": str(url), "as_json": True, **options}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of two snapshots that share nothing."""
    return two_snapshots(tmp_path, "whole")


def killed_everywhere(
    root: Path, verb: str, source: Path, run: Callable[[Path, int], subprocess.CompletedProcess[str]]
) -> Iterator[Path]:
    """Folders in which a command was killed one write later each time, then run to its end by the test."""
    for number in range(1, _LONGEST):
        folder = root / f"{verb}-{number}"
        shutil.copytree(source, folder)
        done = run(folder, number)
        if done.returncode == 0:
            assert number > 4, "it writes more often than that"
            return
        assert done.returncode == KILLED, done.stderr
        yield folder
        shutil.rmtree(folder)
    raise AssertionError("it never came to its end")


def damage(archive: Archive) -> list[object]:
    return [finding for finding in check(archive, deep=True) if finding.grade is Grade.DAMAGE]


def pack_bytes(archive: Archive) -> int:
    return sum(info.size for info in archive.backend.list("packs"))


def assert_comes_back(root: Path, archive: Archive, snapshot_id: str) -> None:
    out = root / "out"
    archive.restore(archive.load(snapshot_id), out)
    assert contents(out) == contents(root / "vault" / "snapshots" / snapshot_id)
    shutil.rmtree(out)


def test_while_it_copies(root: Path) -> None:
    undisturbed = archive_at(root / "undisturbed")
    for snapshot_id in ("j-1", "j-2"):
        copy(archive_at(root / "whole"), snapshot_id, undisturbed)
    source, before = root / "before", archive_at(root / "before" / "target")
    shutil.copytree(root / "whole", source / "source")
    copy(archive_at(root / "whole"), "j-1", before)

    def cp(folder: Path, writes: int) -> subprocess.CompletedProcess[str]:
        options = {"snapshot": "j-2", "to": str(folder / "target"), "to_key_file": None}
        return command(writes, "cp", folder / "source", **options)

    for folder in killed_everywhere(root, "cp", source, cp):
        target = archive_at(folder / "target")
        assert not damage(target) and not damage(archive_at(folder / "source"))
        assert target.snapshot_ids() in (["j-1"], ["j-1", "j-2"])
        assert_comes_back(root, target, "j-1")
        again = cp(folder, 0)
        assert again.returncode == 0, again.stderr
        target = archive_at(folder / "target")
        assert_comes_back(root, target, "j-2")
        gc.execute(target, gc.plan(target))
        assert check(archive_at(folder / "target"), deep=True) == []
        assert pack_bytes(target) == pack_bytes(undisturbed), "nothing is there twice"


def test_while_it_collects(root: Path) -> None:
    """One pack goes, one is repacked."""
    vault, archive = Snapshots(root / "vault"), archive_at(root / "used")
    memory = pages(Random(7), 256)
    for number, shared in ((5, memory), (6, memory), (7, None)):
        write_raw(vault, f"j-{number}", number, ranks=1, memory=shared, mib=2)
        store(vault, archive, f"j-{number}")
    archive.forget("j-5")
    archive.forget("j-7")
    planned = gc.plan(archive)
    assert planned.drop and planned.repack
    shutil.copytree(root / "used", root / "undisturbed")
    gc.execute(archive_at(root / "undisturbed"), planned)

    def collect(folder: Path, writes: int) -> subprocess.CompletedProcess[str]:
        return command(writes, "gc", folder, dry_run=False)

    for folder in killed_everywhere(root, "gc", root / "used", collect):
        assert not damage(archive_at(folder))
        assert_comes_back(root, archive_at(folder), "j-6")
        again = collect(folder, 0)
        assert again.returncode == 0, again.stderr
        again = archive_at(folder)
        assert_comes_back(root, again, "j-6")
        assert check(again, deep=True) == []
        assert pack_bytes(again) == pack_bytes(archive_at(root / "undisturbed")), "nothing is there twice"


def test_while_it_mends(root: Path) -> None:
    """What was damaged is stored anew by a later snapshot: then all three are whole."""
    whole = archive_at(root / "whole")
    nbytes = pack_bytes(whole)
    spoilt = root / "spoilt"
    shutil.copytree(root / "whole", spoilt)
    pack = max(objects(spoilt / "packs"), key=lambda path: path.stat().st_size)
    flip(pack, pack.stat().st_size // 2)
    (hurt,) = damaged_snapshots(check(archive_at(spoilt), deep=True))
    (other,) = {"j-1", "j-2"} - {hurt}

    def mend(folder: Path, writes: int) -> subprocess.CompletedProcess[str]:
        done = command(writes, "check", folder, deep=False, repair=True)
        if done.returncode == 10:  # some chunks are still missing: it came to its end
            done.returncode = 0
        return done

    for folder in killed_everywhere(root, "mend", spoilt, mend):
        assert_comes_back(root, archive_at(folder), other)
        again = mend(folder, 0)
        assert again.returncode == 0, again.stderr
        archive = archive_at(folder)
        assert_comes_back(root, archive, other)
        archive.forget(hurt)
        store(Snapshots(root / "vault"), archive, hurt)
        archive = archive_at(folder)
        assert_comes_back(root, archive, hurt)
        gc.execute(archive, gc.plan(archive))
        assert check(archive_at(folder), deep=True) == []
        assert abs(pack_bytes(archive) - nbytes) < 0.02 * nbytes, "nothing is there twice"
