"""Two nodes on one machine, really apart: each has its own mounts, network, host name, and its own state
folder bound over the same path. What is not carried from one to the other is not there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from midstep.agent.drivers import freeze, kernel, launch
from midstep.agent.drivers.cell import Home, passthrough_for, prepare_home, remove_home
from midstep.agent.drivers.criu import Criu, Dumped, RestoreSpec
from midstep.agent.drivers.launch import RankLaunch, RankProcess
from midstep.agent.drivers.trees import copy_tree

T = TypeVar("T")
STATE = Path(f"/run/midstep-test-{os.getpid()}")
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


class Node:
    """A thread that lives in namespaces of its own; what it starts lives there too."""

    def __init__(self, name: str, disk: Path) -> None:
        self.name = name
        self.disk = disk  # its state folder as seen from outside
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()
        self.do(self._settle)

    def do(self, work: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._work.put((work, future))
        return future.result(timeout=120)

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()

    def _live(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def _settle(self) -> None:
        kernel.unshare(kernel.CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWNET)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount(str(self.disk), str(STATE), None, kernel.MS_BIND)
        ctypes.CDLL(None).sethostname(self.name.encode(), len(self.name))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


@dataclass
class Job:
    """One job of some ranks on a node, which can be moved to another one."""

    node: Node
    criu: Criu
    name: str = "job"
    uid: int = 0
    cpus: tuple[int, ...] = field(default_factory=lambda: tuple(sorted(os.sched_getaffinity(0))))
    processes: dict[int, RankProcess] = field(default_factory=dict[int, RankProcess])
    passthrough: tuple[str, ...] = ()

    @property
    def home(self) -> Home:
        return Home(STATE / self.name)

    @property
    def outside(self) -> Path:
        """Its home as the test sees it (but for what lies on a tmpfs)."""
        return self.node.disk / self.name

    def prepare(self) -> None:
        self.node.do(lambda: prepare_home(self.home, self.uid, self.uid))

    def start(self, argv: Sequence[str], rank: int = 0, **env: str) -> RankProcess:
        env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "RANK": str(rank), **env}
        self.passthrough = passthrough_for(argv, env, [self.criu.path])
        wanted = RankLaunch(
            self.name, rank, tuple(argv), env, self.uid, self.uid, self.cpus, self.home, self.passthrough
        )  # fmt: skip
        self.processes[rank] = self.node.do(lambda: launch.launch(wanted))
        return self.processes[rank]

    def log(self, rank: int = 0) -> str:
        path = self.outside / "logs" / f"rank-{rank}.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, text: str, rank: int = 0, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while text not in self.log(rank):
            assert launch.alive(self.processes[rank]), f"ended without {text!r}: {self.log(rank)}"
            assert time.monotonic() < end, f"no {text!r} in {self.log(rank)}"
            time.sleep(0.01)

    def finish(self, rank: int = 0, limit_s: float = 30) -> int | None:
        end = time.monotonic() + limit_s
        while launch.alive(self.processes[rank]):
            assert time.monotonic() < end, f"still runs: {self.log(rank)[-2000:]}"
            time.sleep(0.01)
        return launch.exit_status(Home(self.outside), rank)

    def freeze(self) -> freeze.Frozen:
        return freeze.freeze(list(self.processes.values()), 5)

    def thaw(self, frozen: freeze.Frozen) -> None:
        freeze.thaw(list(self.processes.values()), frozen)

    def move(self, to: Node, thaw: bool = True) -> None:
        """Freeze, dump, copy, kill, delete; restore elsewhere, from the copies alone; thaw."""
        frozen = freeze.Frozen.from_json(self.freeze().to_json())
        images, home = STATE / "images", self.home
        self.node.do(lambda: self._at_once(lambda r: self._dump(r, images / str(r))))
        copy_tree(self.node.disk / "images", to.disk / "images")
        source = self.node
        source.do(lambda: copy_tree(home.path, STATE / "copy"))
        self.kill()
        source.do(lambda: remove_home(home))
        shutil.rmtree(source.disk / "images")
        os.rename(source.disk / "copy", to.disk / "copy")
        self.node = to
        self.prepare()
        to.do(lambda: copy_tree(STATE / "copy", home.path))
        shutil.rmtree(to.disk / "copy")
        self.processes = to.do(lambda: self._at_once(lambda r: self._restore(r, images / str(r))))
        shutil.rmtree(to.disk / "images")
        if thaw:
            self.thaw(frozen)

    def _at_once(self, work: Callable[[int], T]) -> dict[int, T]:
        """For all ranks. The new threads are in the namespaces of the thread that makes them."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(self.processes, pool.map(work, self.processes), strict=True))

    def _dump(self, rank: int, images: Path) -> Dumped:
        return self.criu.dump(self.processes[rank], images, 60)

    def _restore(self, rank: int, images: Path) -> RankProcess:
        return self.criu.restore(images, RestoreSpec(rank, self.home, self.cpus, self.passthrough), 60)

    def kill(self) -> None:
        for p in self.processes.values():
            launch.kill(p)

    def remove(self) -> None:
        self.kill()
        self.node.do(lambda: remove_home(self.home))
