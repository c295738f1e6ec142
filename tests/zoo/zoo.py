"""Runs the zoo's scripts: plain, and under Midstep on any seats, moved between seats as they run."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midstep.model.launch import RankPlace, rank_environment
from tests.proxy.harness import RankFailed
from tests.runtime.harness import Job

JOBS = Path(__file__).parent / "jobs"
_LIBC = ctypes.CDLL(None)
_ADDR_NO_RANDOMIZE, _ASK = 0x0040000, 0xFFFFFFFF
Lines = dict[str, list[str]]  # case -> what one rank printed
QUIET = {
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


@dataclass(frozen=True)
class Seats:
    """Which ranks are on which device of which node: ``Seats([[0, 1], [2]], [[3]])`` has two nodes."""

    nodes: tuple[tuple[tuple[int, ...], ...], ...]

    def __init__(self, *nodes: Sequence[Sequence[int]]) -> None:
        object.__setattr__(self, "nodes", tuple(tuple(map(tuple, devices)) for devices in nodes))

    @property
    def placement(self) -> list[tuple[int, ...]]:
        """The ranks of each node."""
        return [tuple(rank for device in node for rank in device) for node in self.nodes]

    @property
    def devices(self) -> dict[int, tuple[int, ...]]:
        """rank -> its device's number on its node."""
        return {r: (n,) for node in self.nodes for n, device in enumerate(node) for r in device}

    def __str__(self) -> str:
        """Devices apart by a space, nodes by a bar: ``01 2 | 3``."""
        return " | ".join(" ".join("".join(map(str, device)) for device in node) for node in self.nodes)


def apart(*nodes: Sequence[int]) -> Seats:
    """Each rank on a device of its own."""
    return Seats(*([[rank] for rank in node] for node in nodes))


class Zoo(Job):
    """A job whose ranks' output is read as lines of cases; it can be moved while it runs."""

    def __init__(self, folder: Path, seats: Seats, random_addresses: bool = False) -> None:
        """``random_addresses``: not as the agent starts ranks, but what a script may arrange for itself."""
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, seats.placement)
        self.devices = seats.devices
        self.seats = seats
        self.environment = {**QUIET, "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "inductor")}
        self._random_addresses = random_addresses

    async def start_ranks(self, target: str, *args: Any) -> None:
        before = _LIBC.personality(_ASK)
        if not self._random_addresses:
            _LIBC.personality(before | _ADDR_NO_RANDOMIZE)  # what we start inherits it
        try:
            await super().start_ranks(target, *args)
        finally:
            _LIBC.personality(before)
        self._pin()

    async def move(self, seats: Seats) -> None:
        """Freeze, drain, and go on with other seats."""
        await self.freeze()
        drained = await asyncio.gather(*(proxy.drain(60.0) for proxy in self.proxies))
        await asyncio.gather(*(proxy.stop() for proxy in self.proxies))
        self.store = next(one.store for one in drained if one.store is not None)
        self.seats, self.placement, self.devices = seats, seats.placement, seats.devices
        self._pin()
        await self.start_proxies()
        self.thaw()

    def spliced(self) -> dict[str, int]:
        """How many of its update steps rank 0 had made for all, or took from another rank, by case."""
        found: dict[str, int] = {}
        before = 0
        for line in (self.folder / "log0").read_text(errors="replace").splitlines():
            words = line.split(" ")
            if words[0] == "spliced" and len(words) == 4:
                so_far = int(words[2]) + int(words[3])
                found[words[1]], before = so_far - before, so_far
        return found

    def _pin(self) -> None:
        """Ranks of one device on one processor: the job's devices, counted through all nodes, take turns."""
        cores = sorted(os.sched_getaffinity(0))
        places = [device for node in self.seats.nodes for device in node]
        for number, device in enumerate(places):
            for rank in device:
                try:
                    for thread in os.listdir(f"/proc/{self.ranks[rank].pid}/task"):
                        os.sched_setaffinity(int(thread), {cores[number % len(cores)]})
                except (FileNotFoundError, ProcessLookupError):
                    pass  # it has ended

    def _result(self, rank: int) -> Lines:
        code = self.ranks[rank].returncode
        if code:
            raise RankFailed(f"rank {rank} exited with {code}:\n{self.log(rank)}")
        return by_case((self.folder / f"out{rank}").read_text())


def by_case(text: str) -> Lines:
    """The lines of each case; what libraries print besides has no tabs."""
    found: Lines = {}
    for line in text.splitlines():
        words = line.split("\t")
        if len(words) == 3:
            found.setdefault(words[0], []).append(f"{words[1]} {words[2]}")
    return found


def target(script: str) -> str:
    return str(JOBS / f"{script}.py")


async def under_midstep(
    folder: Path,
    seats: Seats,
    script: str,
    *cases: str,
    timeout_s: float = 300.0,
    random_addresses: bool = False,
) -> list[Lines]:
    """What each rank printed, with these seats from beginning to end."""
    async with Zoo(folder, seats, random_addresses) as zoo:
        return await zoo.run(target(script), *cases, timeout_s=timeout_s)


async def on_tour(
    folder: Path,
    tour: Sequence[Seats],
    script: str,
    *cases: str,
    every_s: float,
    most: int,
    timeout_s: float = 300.0,
) -> tuple[list[Lines], int]:
    """The same, moved from seats to seats ``most`` times or until it ends; and how often it was moved."""
    moves = 0
    async with Zoo(folder, tour[0]) as zoo:
        await zoo.start_ranks(target(script), *cases)
        await zoo.start_proxies()
        while zoo.running() and moves < most:
            await asyncio.sleep(every_s)
            if zoo.running():
                moves += 1
                await zoo.move(tour[moves % len(tour)])
        return await zoo.results(timeout_s), moves


async def over_gloo(
    folder: Path, size: int, port: int, script: str, *cases: str, timeout_s: float = 300.0
) -> list[Lines]:
    """What each rank printed without Midstep, and every rank on whatever processor."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MIDSTEP_RUN")}
    processes = []
    for rank in range(size):
        environment = inherited | QUIET | rank_environment(RankPlace(rank, size, size), "plain", port)
        with (folder / f"plain{rank}").open("wb") as out, (folder / f"log{rank}").open("wb") as log:
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    target(script),
                    *cases,
                    env=environment,
                    stdout=out,
                    stderr=log,
                    cwd=folder,
                )
            )
    try:
        async with asyncio.timeout(timeout_s):
            codes = [await process.wait() for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
    bad = [rank for rank, code in enumerate(codes) if code]
    assert not bad, (folder / f"log{bad[0]}").read_text(errors="replace")[-4000:]
    return [by_case((folder / f"plain{rank}").read_text()) for rank in range(size)]


def differences(ours: Sequence[Lines], theirs: Sequence[Lines]) -> list[str]:
    """For each case and rank that differs, the first line that does."""
    found: list[str] = []
    for rank, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in sorted(mine.keys() | other.keys()):
            left, right = mine.get(name, []), other.get(name, [])
            if left != right:
                at = next((n for n, pair in enumerate(zip(left, right)) if pair[0] != pair[1]), len(left))
                found.append(f"{name}, rank {rank}, line {at}: {left[at:][:1]}, not {right[at:][:1]}")
    return found
