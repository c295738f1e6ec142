"""What suspending and resuming a rank costs over CRIU itself.

The same training script is started twice, as a rank in its cell and bare in a PID namespace, and dumped and
restored by us and by the bare `criu` command line in turn. Ours includes all that the agent does for a rank
on the critical path: freezing, looking for what cannot be moved, entering the cell, its /proc, processor
affinity, thawing, killing what was dumped. The figures are the ratios.

Both have the machine to themselves: while one is dumped or restored the other is stopped or not there. Both
write into memory (neither waits for a disk before it says that it is done, and what a disk does with images
that were removed minutes ago hits whoever comes next).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from benchmarks._fleet import memory_folder
from benchmarks.registry import Skip, benchmark
from midstep.agent.drivers import freeze, kernel, launch
from midstep.agent.drivers.cell import Home, passthrough_for, prepare_home, remove_home
from midstep.agent.drivers.criu import Criu, RestoreSpec
from midstep.agent.drivers.launch import RankLaunch, RankProcess
from midstep.agent.install.criu_find import find_criu

JOB = Path(__file__).parent / "jobs" / "adam.py"
RUNS = 7
_RAW = ("--ghost-limit", "4095M", "--link-remap", "--tcp-close", "--file-locks", "--manage-cgroups=ignore")
_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWTIME | kernel.CLONE_NEWIPC
_READY_S = 120
_SETTLE_S = 0.5


@benchmark("suspend", bar=1.15, unit="x", against="raw `criu dump` of the same processes")
def suspend() -> list[float]:
    return [ours / raw for (ours, raw), _ in _runs()]


@benchmark("resume", bar=1.15, unit="x", against="raw `criu restore` of the same processes")
def resume() -> list[float]:
    return [ours / raw for _, (ours, raw) in _runs()]


@benchmark(
    "freeze-4-ranks",
    bar=25,
    unit="ms",
    against="an absolute bound: half of a cut's 50 ms, four busy ranks",
)
def freeze_four() -> list[float]:
    with scratch_folder() as scratch:
        home = Home(scratch / "home")
        prepare_home(home, 0, 0)
        ranks = [_start(home, rank, workers=0) for rank in range(4)]
        try:
            for rank in range(4):
                _await(home.log(rank))
            times: list[float] = []
            for _ in range(50):
                frozen = freeze.freeze(ranks, 5)
                times.append(frozen.duration_s * 1e3)
                freeze.thaw(ranks, frozen)
                time.sleep(0.02)
            return times
        finally:
            for p in ranks:
                launch.kill(p)
            remove_home(home)


@cache
def _runs() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """For each run: (ours, raw) seconds of the dump, and of the restore."""
    with scratch_folder() as scratch:
        rank, bare = Rank(scratch / "rank"), Bare(scratch / "bare")
        try:
            rank.start()
            bare.start()
            found: list[tuple[tuple[float, float], tuple[float, float]]] = []
            for _ in range(RUNS + 1):
                with bare.paused():
                    ours = rank.dump()
                raw = bare.dump()
                raw_restore = bare.restore()
                with bare.paused():
                    ours_restore = rank.restore()
                found.append(((ours, raw), (ours_restore, raw_restore)))
            return found[1:]  # the first one warms the caches
        finally:
            rank.end()
            bare.end()


class Rank:
    """A rank, by the drivers."""

    def __init__(self, folder: Path) -> None:
        self.home, self.images = Home(folder / "home"), folder / "images"
        self.criu = _criu()

    def start(self) -> None:
        prepare_home(self.home, 0, 0)
        self.p = _start(self.home, 0)
        _await(self.home.log(0))

    def dump(self) -> float:
        shutil.rmtree(self.images, ignore_errors=True)
        begun = time.perf_counter()
        self.frozen = freeze.freeze([self.p], 5)
        self.criu.dump(self.p, self.images, 60)
        launch.kill(self.p)
        return time.perf_counter() - begun

    def restore(self) -> float:
        spec = RestoreSpec(0, self.home, tuple(os.sched_getaffinity(0)), _passthrough())
        begun = time.perf_counter()
        self.p = self.criu.restore(self.images, spec, 60)
        freeze.thaw([self.p], self.frozen)
        return time.perf_counter() - begun

    def end(self) -> None:
        launch.kill(self.p)
        remove_home(self.home)


class Bare:
    """The same program in a PID namespace only, by the command line of CRIU."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.criu = str(_criu().path)

    def start(self) -> None:
        self.folder.mkdir()
        log = self.folder / "log"
        self.pid = kernel.apart(lambda: self._start(log), "bare")
        _await(log)

    def dump(self) -> float:
        shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir()
        return self._time("dump", "-t", str(self.pid))

    def restore(self) -> float:
        took = self._time("restore", "-d", "--pidfile", "pid")
        self.pid = int((self.images / "pid").read_text())
        return took

    def end(self) -> None:
        launch.kill(launch.process_at(0, self.pid))

    @contextmanager
    def paused(self) -> Generator[None]:
        """It stands still; before and after, what was just started or ended comes to rest."""
        pids = launch.processes(launch.process_at(0, self.pid))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(_SETTLE_S)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
            time.sleep(_SETTLE_S)

    def _time(self, *command: str) -> float:
        begun = time.perf_counter()
        done = subprocess.run(
            [self.criu, command[0], "-D", str(self.images), *command[1:], *_RAW], capture_output=True
        )
        took = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"criu {command[0]}: {done.stderr.decode()[-500:]}")
        return took

    def _start(self, log: Path) -> int:
        kernel.personality(kernel.ADDR_NO_RANDOMIZE)
        kernel.unshare(_NAMESPACES)
        command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(JOB)]
        with log.open("ab") as file:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=self.folder,
            )
        child.returncode = (
            0  # it is dumped, killed and restored under other numbers: nobody waits for this one
        )
        return child.pid


def _start(home: Home, rank: int, workers: int = 2) -> RankProcess:
    shutil.copy(JOB, home.path / "work" / "adam.py")
    argv = (sys.executable, "adam.py")
    env = {"PATH": os.environ["PATH"], "WORKERS": str(workers)}
    cpus = tuple(os.sched_getaffinity(0))
    return launch.launch(RankLaunch("bench", rank, argv, env, 0, 0, cpus, home, _passthrough()))


@cache
def _passthrough() -> tuple[str, ...]:
    return passthrough_for((sys.executable,), dict(os.environ), [_criu().path])


@cache
def _criu() -> Criu:
    found = find_criu()
    if os.geteuid() != 0 or found is None or not found.new_enough:
        raise Skip("needs root and CRIU 4.1 or newer")
    return Criu(found.path)


def _await(log: Path) -> None:
    end = time.monotonic() + _READY_S
    while not log.exists() or "ready" not in log.read_text():
        if time.monotonic() > end:
            raise RuntimeError(f"the job did not get going: {log}")
        time.sleep(0.05)


@contextmanager
def scratch_folder() -> Generator[Path, None, None]:
    if os.geteuid() != 0:
        raise Skip("needs root")
    folder = Path(tempfile.mkdtemp(prefix="midstep-bench-"))
    try:
        with memory_folder(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
