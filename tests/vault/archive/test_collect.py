"""Collection beside writers: what a snapshot needs is never removed, whatever clocks, leases and kills do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from midstep.env import Ids, MockClock
from midstep.vault.archive import gc, leases
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import Grade, check, damaged_snapshots
from midstep.vault.archive.leases import LEASE_S, Lease, awaited, collecting, is_void, writers
from midstep.vault.backends.base import Backend, Buffer, ObjectInfo
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import Busy, LeaseLost
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import AtOnce, archive_at, contents, pages, python, store, write_raw


@pytest.fixture
def vault(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "vault")


def collect(archive: Archive) -> gc.Collected:
    return gc.execute(archive, gc.plan(archive))


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_storing_forgetting_and_collecting(vault: Snapshots, seed: int, tmp_path: Path) -> None:
    chance = Random(seed)
    memory = [pages(chance, 64) for _ in range(4)]
    backend = MemoryBackend()
    alive: list[str] = []
    for number in range(1, 13):
        snapshot_id = f"j-{number}"
        write_raw(vault, snapshot_id, number, ranks=1, memory=b"".join(chance.sample(memory, 2)), mib=0)
        store(vault, archive_at(backend), snapshot_id)
        alive.append(snapshot_id)
        if chance.random() < 0.5:
            archive_at(backend).forget(alive.pop(chance.randrange(len(alive))))
        if chance.random() < 0.5:
            archive = archive_at(backend)
            collect(archive)
            assert check(archive, deep=True) == []
            assert gc.plan(archive).empty or gc.plan(archive).freed_bytes > 0
    archive = archive_at(backend)
    assert sorted(archive.snapshot_ids()) == sorted(alive)
    for snapshot_id in alive:
        archive.restore(archive.load(snapshot_id), tmp_path / snapshot_id)
        assert contents(tmp_path / snapshot_id) == contents(vault.path(snapshot_id))
    for snapshot_id in alive:
        archive.forget(snapshot_id)
    collect(archive)
    assert not list(backend.list("packs")) and not list(backend.list("index"))


@pytest.mark.parametrize("seed", range(8))
def test_what_two_writers_stored_at_once_is_there_until_nobody_needs_it(
    vault: Snapshots, seed: int, tmp_path: Path
) -> None:
    """The same memory is then in two packs, one of which may go while the other is repacked."""
    chance, backend = Random(seed), AtOnce()
    memory = [pages(chance, 64) for _ in range(4)]
    alive: list[str] = []
    for number in range(1, 13, 2):
        one, other = f"j-{number}", f"j-{number + 1}"
        shared = b"".join(chance.sample(memory, 2))
        for name in (one, other):
            write_raw(vault, name, chance.randrange(99), ranks=1, memory=shared, mib=chance.randrange(2))
        backend.work = lambda it=other: store(vault, archive_at(backend), it)
        store(vault, archive_at(backend), one)
        alive += [one, other]
        for _ in range(chance.randrange(3)):
            archive_at(backend).forget(alive.pop(chance.randrange(len(alive))))
        archive = archive_at(backend)
        collect(archive)
        assert check(archive, deep=True) == []
    for name in alive:
        archive = archive_at(backend)
        archive.restore(archive.load(name), tmp_path / name)
        assert contents(tmp_path / name) == contents(vault.path(name))


def test_a_plan_changes_nothing_and_says_what_would_go(vault: Snapshots) -> None:
    write_raw(vault, "j-1", 1)
    archive = archive_at(MemoryBackend())
    store(vault, archive, "j-1")
    assert gc.plan(archive).empty
    archive.forget("j-1")
    before = list(archive.backend.list())
    planned = gc.plan(archive)
    assert planned.freed_bytes == planned.total_bytes > 0 and planned.snapshots == 0
    assert list(archive.backend.list()) == before
    assert gc.execute(archive, planned).freed_bytes == planned.freed_bytes


def test_what_came_to_be_needed_after_the_plan_stays(vault: Snapshots, tmp_path: Path) -> None:
    write_raw(vault, "j-1", 1)
    archive = archive_at(MemoryBackend())
    store(vault, archive, "j-1")
    archive.forget("j-1")
    planned = gc.plan(archive)
    assert store(vault, archive, "j-1").new_bytes == 0, "all of it is still there"
    assert gc.execute(archive, planned).packs == 0
    assert check(archive, deep=True) == []


def test_a_writer_and_a_collector_keep_out_of_each_others_way() -> None:
    archive = archive_at(MemoryBackend())
    with Lease(archive.backend, archive.clock, archive.ids), pytest.raises(Busy, match="storing a snapshot"):
        collect(archive)
    with collecting(archive.backend, archive.clock, archive.ids):
        assert not awaited(archive.backend)
        with (
            pytest.raises(Busy, match="is being collected"),
            Lease(archive.backend, archive.clock, archive.ids),
        ):
            pass
        assert awaited(archive.backend)
        with pytest.raises(Busy), collecting(archive.backend, archive.clock, archive.ids):
            pass
    with collecting(archive.backend, archive.clock, archive.ids):
        assert not awaited(archive.backend), "that was the last time"
    assert not list(archive.backend.list("leases"))


_DIE = """
import os, signal, socket, sys
from pathlib import Path
from tests.vault.archive.harness import AtOnce, archive_at
from midstep.vault.archive.leases import Lease, collecting
archive = archive_at(Path(sys.argv[1]))
socket.gethostname = lambda name=sys.argv[3] or socket.gethostname(): name
with {"writer": Lease, "collector": collecting}[sys.argv[2]](archive.backend, archive.clock, archive.ids):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("machine", ["", "north-1"], ids=["its name", "a node's name"])
@pytest.mark.parametrize("who", ["writer", "collector"])
def test_one_that_was_killed_is_in_nobodys_way(tmp_path: Path, who: str, machine: str) -> None:
    """Nodes of an embedded fleet call the same machine by names of their own."""
    archive = archive_at(tmp_path)
    assert python(_DIE, str(tmp_path), who, machine).returncode == -9
    (waste,) = check(archive)
    assert waste.grade is Grade.WASTE
    with Lease(archive.backend, archive.clock, archive.ids):
        pass
    collect(archive)
    assert not list(archive.backend.list("leases"))


class Elsewhere(MemoryBackend):
    """Leases look as if they were of another machine."""

    def put(self, name: str, data: Buffer) -> None:
        if "lease" in name:
            for field in (b'"host": "', b'"boot": "'):
                data = bytes(data).replace(field, field + b"other-")
        super().put(name, data)


@pytest.mark.parametrize("jump_s", [LEASE_S + 1, -LEASE_S - 1, 10 * 365 * 86400.0])
def test_a_clock_that_jumps_costs_a_second_try_and_no_snapshot(
    vault: Snapshots, jump_s: float, tmp_path: Path
) -> None:
    """The collector takes the writer for dead and removes what it relied on, at the worst moment."""
    clock = MockClock()

    class Backend(Elsewhere):
        def create(self, name: str, data: Buffer) -> None:
            if name.endswith("j-2") and not self.done:
                self.done = True
                clock.step_wall(jump_s)
                other = Archive(self, clock, Ids(Random(9)))
                collect(other)
            super().create(name, data)

        done = False

    backend = Backend()
    archive = archive_at(backend, clock, seed=1)
    for number in (1, 2):  # the same memory: the second needs only what the first has brought
        write_raw(vault, f"j-{number}", 5, ranks=1)
    store(vault, archive, "j-1")
    archive.forget("j-1")
    with pytest.raises(LeaseLost, match="store it again"):
        store(vault, archive, "j-2")
    assert backend.done and not archive.exists("j-2")
    store(vault, archive, "j-2")
    assert check(archive, deep=True) == []
    archive.restore(archive.load("j-2"), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(vault.path("j-2"))


def test_a_lease_on_another_machine_lasts_as_long_as_it_is_renewed() -> None:
    clock = MockClock()
    backend: Backend = Elsewhere()
    archive = archive_at(backend, clock, seed=1)
    lease = Lease(backend, clock, Ids(Random(3)))
    with lease:
        for _ in range(5):
            clock._passed_s += 0.9 * LEASE_S  # pyright: ignore[reportPrivateUsage] - nothing sleeps here
            lease.renew()
            with pytest.raises(Busy):
                collect(archive)
        clock._passed_s += 1.1 * LEASE_S  # pyright: ignore[reportPrivateUsage]
        collect(archive)
        assert not writers(backend) and not lease.undisturbed()
        clock._passed_s += 100  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(LeaseLost):
            lease.renew()


def test_a_lease_is_renewed_while_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.005)
    clock = MockClock()
    backend: Backend = Elsewhere()
    with Lease(backend, clock, Ids(Random(3))):
        clock._passed_s += 2 * LEASE_S  # pyright: ignore[reportPrivateUsage]
        deadline_s = time.monotonic() + 60
        while (holder := writers(backend)[0][1]) is None or is_void(holder, clock):
            assert time.monotonic() < deadline_s, "nobody has renewed it"
            time.sleep(0.005)
    assert not writers(backend), "and not put again after its end"


class Meanwhile(MemoryBackend):
    """Something is done after the indexes were read, before the packs are looked at."""

    work: Callable[[], object] | None = None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if prefix == "packs" and (work := self.work):
            self.work = None
            work()
        return super().list(prefix)


def test_a_check_at_the_same_time_as_a_collector_finds_no_damage(vault: Snapshots) -> None:
    backend, clock = Meanwhile(), MockClock()
    archive = archive_at(backend, clock, seed=1)
    for number in (1, 2):
        write_raw(vault, f"j-{number}", number, ranks=1)
        store(vault, archive, f"j-{number}")
    archive.forget("j-1")
    packs = len(list(backend.list("packs")))
    backend.work = lambda: collect(archive_at(backend, clock, seed=2))
    assert check(archive, deep=True) == []
    assert backend.work is None and len(list(backend.list("packs"))) < packs, "it has collected"


def test_what_is_damaged_is_found_in_the_second_look_too(vault: Snapshots) -> None:
    backend, clock = Meanwhile(), MockClock()
    archive = archive_at(backend, clock, seed=1)
    write_raw(vault, "j-1", 1, ranks=1)
    store(vault, archive, "j-1")
    name = next(info.name for info in backend.list("packs"))
    data = bytearray(backend.get(name))
    data[100] ^= 1
    backend.put(name, bytes(data))
    assert damaged_snapshots(check(archive, deep=True)) == ["j-1"]
