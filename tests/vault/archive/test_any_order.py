"""Storing (also two at once), forgetting, collecting (also by an old plan) and mending in any order, by
archives that know more or less of each other, each killed before any of its writes: whatever was committed
and not forgotten stays whole, and in the end nothing is left over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from midstep.env import Clock
from midstep.vault.archive import gc, leases
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import Grade, check
from midstep.vault.archive.mend import mend
from midstep.vault.backends.base import Buffer
from midstep.vault.errors import LeaseLost
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import AtOnce, archive_at, contents, pages, store, write_raw

OPERATIONS = ("store", "store", "two", "forget", "forget", "collect", "plan", "by an old plan", "mend")
STEPS = 25


class Killed(BaseException):
    """Nothing of this process reaches the disk from here on."""


class Mortal(AtOnce):
    """After ``left`` writes, whoever writes is dead. None: nobody dies."""

    left: int | None = None

    def put(self, name: str, data: Buffer) -> None:
        self._live()
        super().put(name, data)

    def create(self, name: str, data: Buffer) -> None:
        self._live()
        super().create(name, data)

    def delete(self, name: str) -> None:
        self._live()
        super().delete(name)

    def _live(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class World:
    """Archives over one backend, and what must be in it."""

    def __init__(self, root: Path, chance: Random) -> None:
        self.chance, self.backend, self.vault = chance, Mortal(), Snapshots(root / "vault")
        self.memory = [pages(chance, 80) for _ in range(5)]
        self.alive: set[str] = set()
        self.story: list[str] = []
        self._archives: list[Archive] = []
        self._plans: list[gc.Plan] = []
        self._count = 0

    def step(self) -> None:
        operation, chance = self.chance.choice(OPERATIONS), self.chance
        if not self._archives or chance.random() < 0.6:
            self._archives = [*self._archives[-2:], archive_at(self.backend)]
        archive = chance.choice(self._archives)
        mortal = chance.randrange(1, 14) if chance.random() < 0.4 else None
        self.story.append(f"{operation}, dies after {mortal} writes" if mortal else operation)
        new = [self._raw() for _ in range({"store": 1, "two": 2}.get(operation, 0))]
        self.backend.left = mortal
        try:
            self._do(operation, archive, new)
        except Killed:
            self._archives.remove(archive)
        except LeaseLost:
            pass
        self.backend.left, self.backend.work = None, None
        self.alive |= set(new) & set(archive_at(self.backend).snapshot_ids())

    def _do(self, operation: str, archive: Archive, new: list[str]) -> None:
        match operation:
            case "store":
                store(self.vault, archive, new[0])
            case "two":
                other = archive_at(self.backend)
                self.backend.work = lambda: store(self.vault, other, new[1])
                store(self.vault, archive, new[0])
            case "forget" if self.alive:
                doomed = self.chance.choice(sorted(self.alive))
                self.alive.remove(doomed)
                archive.forget(doomed)
            case "collect":
                gc.execute(archive, gc.plan(archive))
            case "plan":
                self._plans.append(gc.plan(archive))
            case "by an old plan" if self._plans:
                gc.execute(archive, self._plans.pop())
            case "mend":
                mend(archive)
            case _:
                pass

    def _raw(self) -> str:
        self._count += 1
        some = self.chance.randrange(len(self.memory))  # a little of it changes: the next has it in parts
        self.memory[some] = poked(self.memory[some], self.chance)
        shared = b"".join(self.chance.sample(self.memory, self.chance.randrange(1, 4)))
        seed, mib = self.chance.randrange(1000), self.chance.randrange(2)
        write_raw(self.vault, f"j-{self._count}", seed, ranks=1, memory=shared, mib=mib)
        return f"j-{self._count}"


def poked(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    for at in chance.sample(range(len(data)), 20):
        changed[at] ^= 1
    return bytes(changed)


@pytest.fixture(autouse=True)
def nobody_else_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who were killed were this very process."""
    void: Callable[[leases.Holder, Clock], bool] = lambda holder, clock: True  # noqa: E731
    monkeypatch.setattr(leases, "is_void", void)


@pytest.mark.parametrize("seed", [*range(6), 103, 114])  # the last two found a collector that lost chunks
def test_what_is_committed_stays_and_the_rest_goes(seed: int, tmp_path: Path) -> None:
    _live_through(seed, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 400))
def test_more_of_the_same(seed: int, tmp_path: Path) -> None:
    _live_through(seed, tmp_path)


def _live_through(seed: int, root: Path) -> None:
    world = World(root, Random(seed))
    for _ in range(STEPS):
        world.step()
        archive = archive_at(world.backend)
        damage = [it for it in check(archive, deep=True) if it.grade is Grade.DAMAGE]
        assert not damage and world.alive <= set(archive.snapshot_ids()), (seed, world.story, damage)
    archive = archive_at(world.backend)
    for snapshot_id in archive.snapshot_ids():
        archive.restore(archive.load(snapshot_id), root / "out")
        assert contents(root / "out") == contents(world.vault.path(snapshot_id))
        shutil.rmtree(root / "out")
    for _ in range(2):  # the first may make orphans of what was copied by one that was killed
        gc.execute(archive, gc.plan(archive))
    assert check(archive_at(world.backend), deep=True) == [], (seed, world.story)
