"""The archiver killed (-9) at every step, as a process: a snapshot is there whole or not at all, what was
there stays, and the next run puts everything in order. Buys: the order of writes in store, retain, collect,
restore."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import pytest

from midstep.vault.archive import gc
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import Grade, check
from midstep.vault.archive.orders import Orders
from midstep.vault.archive.retention import Rule
from midstep.vault.faults import POINTS
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archiver, contents, pages, python, write_raw

KILLED = -signal.SIGKILL
AFTER_COMMIT = ("commit:after", "store:after")


def points(*kinds: str) -> list[str]:
    return [point for point in POINTS if point.partition(":")[0] in kinds]


@pytest.fixture
def vault(tmp_path: Path) -> Snapshots:
    """`j-1` is archived, `j-2` is not."""
    vault = Snapshots(tmp_path / "vault")
    memory = pages(Random(7), 256)
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number, ranks=1, memory=memory, mib=1)
    assert archiver(vault, ["j-1"])[0] == 0
    return vault


def archive_of(vault: Snapshots) -> Archive:
    archive = Snapshots(vault.root).archive()
    assert archive is not None
    return archive


def damage(archive: Archive) -> list[object]:
    return [finding for finding in check(archive, deep=True) if finding.grade is Grade.DAMAGE]


def assert_comes_back(vault: Snapshots, snapshot_id: str, tmp_path: Path) -> None:
    archive = archive_of(vault)
    archive.restore(archive.load(snapshot_id), tmp_path / f"out-{snapshot_id}")
    assert contents(tmp_path / f"out-{snapshot_id}") == contents(vault.path(snapshot_id))


@pytest.mark.parametrize("point", points("store", "commit"))
def test_while_it_stores(vault: Snapshots, point: str, tmp_path: Path) -> None:
    orders = Orders(store={"j-2": "test"}, generations={"j": 1})
    assert archiver(vault, orders, crash_at=point)[0] == KILLED
    archive = archive_of(vault)
    assert archive.exists("j-2") == (point in AFTER_COMMIT)
    assert not damage(archive)
    assert_comes_back(vault, "j-1", tmp_path)
    code, news = archiver(vault, orders)
    assert code == 0 and news[-1].what == "archived" and news[-1].again == (point in AFTER_COMMIT)
    assert_comes_back(vault, "j-2", tmp_path)
    _collect(archive_of(vault))
    assert check(archive_of(vault), deep=True) == [], "not even waste"


@pytest.mark.parametrize("point", points("retain"))
def test_while_it_forgets(vault: Snapshots, point: str, tmp_path: Path) -> None:
    archiver(vault, ["j-2"])
    rule = Orders(retain=(Rule("j", 0, ("j-2",)),), generations={"j": 1})
    assert archiver(vault, rule, crash_at=point)[0] == KILLED
    assert not damage(archive_of(vault))
    assert archiver(vault, rule)[0] == 0
    assert archive_of(vault).snapshot_ids() == ["j-2"]
    assert_comes_back(vault, "j-2", tmp_path)


_GC = """
import sys
from pathlib import Path
from midstep.vault import faults
from midstep.vault.archive import gc
from midstep.vault.snapshots import Snapshots
archive = Snapshots(Path(sys.argv[1])).archive()
planned = gc.plan(archive)
assert len(planned.drop) + len(planned.repack) + len(planned.orphans) >= 2, planned
faults.arm(sys.argv[2])
gc.execute(archive, planned)
"""


@pytest.mark.parametrize("point", points("gc"))
def test_while_it_collects(vault: Snapshots, point: str, tmp_path: Path) -> None:
    _make_waste(vault)
    done = python(_GC, str(vault.root), point)
    assert done.returncode == KILLED, done.stderr
    archive = archive_of(vault)
    assert not damage(archive)
    assert_comes_back(vault, "j-2", tmp_path)
    write_raw(vault, "j-5", 5, ranks=1, mib=1)
    code, news = archiver(vault, ["j-5"])  # whoever was killed does not stand in the way
    assert code == 0, news
    _collect(archive_of(vault))
    assert check(archive_of(vault), deep=True) == []
    assert_comes_back(vault, "j-5", tmp_path)
    assert sum(info.size for info in archive.backend.list("packs")) < 4.5 * (1 << 20)


_RESTORE = """
import sys
from pathlib import Path
from midstep.vault import faults
from midstep.vault.snapshots import Snapshots
faults.arm(sys.argv[2])
Snapshots(Path(sys.argv[1])).materialise("j-1")
"""


@pytest.mark.parametrize("point", points("restore"))
def test_while_it_restores(vault: Snapshots, point: str) -> None:
    before = contents(vault.path("j-1"))
    vault.delete("j-1")
    done = python(_RESTORE, str(vault.root), point)
    assert done.returncode == KILLED, done.stderr
    vault.materialise("j-1")
    assert contents(vault.path("j-1")) == before


def _make_waste(vault: Snapshots) -> None:
    """Packs of which all, and of which most, is of no use; and some that a killed writer left."""
    for number in (3, 4):
        write_raw(vault, f"j-{number}", number, ranks=2, mib=1)
    archiver(vault, ["j-2", "j-3"])
    assert archiver(vault, ["j-4"], crash_at="store:written")[0] == KILLED
    archive = archive_of(vault)
    for snapshot_id in ("j-1", "j-3"):
        archive.forget(snapshot_id)


def _collect(archive: Archive) -> None:
    gc.execute(archive, gc.plan(archive))
