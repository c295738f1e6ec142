"""Ranks and proxies as plain processes over loopback: K proxies stand for K nodes, any rank on any of them.

``Fleet`` starts ranks that run a function of a module, ``function(channel, rank, size, *args)``, and proxies
that serve them; results come back pickled. Usable by any test that needs a real channel in real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midstep.proxy.config import ProxyConfig
from midstep.proxy.handle import ProxyHandle
from midstep.proxy.peers import Peer
from midstep.proxy.report import Drained
from midstep.proxy.zygote import Zygote

ROOT = Path(__file__).resolve().parents[2]
Placement = Sequence[Sequence[int]]


class RankFailed(AssertionError):
    """A rank ended without a result; the text is the end of what it said."""


class Fleet:
    """The ranks of one job and the proxies of its nodes. Use as ``async with Fleet(folder, [[0, 1], [2]]) as
    fleet``."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        self.folder = folder
        self.placement = [tuple(ranks) for ranks in placement]
        self.size = sum(len(ranks) for ranks in placement)
        self.devices: dict[int, tuple[int, ...]] = {}  # rank -> devices on its node; empty: no leases
        self.epoch = 0
        self.store: dict[str, bytes] = {}
        self.ranks: dict[int, asyncio.subprocess.Process] = {}
        self.proxies: list[ProxyHandle] = []
        self._zygote: Zygote | None = None
        (folder / "run" / "mailboxes").mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> Fleet:
        self._zygote = await Zygote.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.ranks.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for proxy in self.proxies:
            await proxy.stop()
        for process in self.ranks.values():
            await process.wait()
        if self._zygote is not None:
            await self._zygote.stop()

    async def run(self, target: str, *args: Any, timeout_s: float = 60.0) -> list[Any]:
        """Start ranks and proxies, and return what each rank's ``target`` ("module:function") returned."""
        await self.start_ranks(target, *args)
        await self.start_proxies()
        return await self.results(timeout_s)

    async def run_again(self, target: str, *args: Any, timeout_s: float = 60.0) -> list[Any]:
        """As ``run``, with new processes and an empty store each time."""
        for proxy in self.proxies:
            await proxy.stop()
        (self.folder / "store").unlink(missing_ok=True)
        return await self.run(target, *args, timeout_s=timeout_s)

    async def start_ranks(self, target: str, *args: Any) -> None:
        """Start every rank; they wait for proxies by themselves."""
        paths = [str(ROOT / "src"), str(ROOT), *sys.path]
        for rank in range(self.size):
            (self.folder / f"args{rank}").write_bytes(pickle.dumps(args))
            (self.folder / f"result{rank}").unlink(missing_ok=True)
            env = dict(
                os.environ, RANK=str(rank), WORLD_SIZE=str(self.size), MIDSTEP_RUN=str(self.folder / "run")
            )
            env.update(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
            log = (self.folder / f"log{rank}").open("wb")
            self.ranks[rank] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.proxy.rank",
                target,
                str(self.folder),
                env=env,
                stdout=log,
                stderr=log,
            )

    async def start_proxies(self) -> None:
        """Start a proxy for each node, under a new epoch, and connect them."""
        self.epoch += 1
        self.proxies = [await self._proxy(index) for index in range(len(self.placement))]
        await self.connect()
        self.store = {}

    async def replace_proxy(self, index: int) -> None:
        """Start another proxy for one node and tell the others."""
        self.proxies[index] = await self._proxy(index)
        await self.connect()

    async def connect(self) -> None:
        peers = [
            Peer(index, "127.0.0.1", self.proxies[index].port, ranks, 0 in ranks)
            for index, ranks in enumerate(self.placement)
        ]
        await asyncio.gather(*(proxy.connect(peers) for proxy in self.proxies))

    async def kill_proxy(self, index: int) -> None:
        """End a proxy at once, in whatever it does."""
        os.kill(self.proxies[index].pid, signal.SIGKILL)
        await self.proxies[index].closed.wait()

    async def freeze(self) -> None:
        """Stop every rank, and see it stopped."""
        for process in self.ranks.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGSTOP)
        for process in self.ranks.values():
            while process.returncode is None and not _stopped(process.pid):
                await asyncio.sleep(0.001)

    def thaw(self) -> None:
        for process in self.ranks.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)

    async def cut(self, deadline_s: float = 60.0) -> list[Drained]:
        """Freeze, drain, end the proxies, start others, thaw; what each drained proxy said."""
        await self.freeze()
        drained = list(await asyncio.gather(*(proxy.drain(deadline_s) for proxy in self.proxies)))
        await asyncio.gather(*(proxy.stop() for proxy in self.proxies))
        self.store = next(one.store for one in drained if one.store is not None)
        await self.start_proxies()
        self.thaw()
        return drained

    def running(self) -> bool:
        """Whether any rank still runs."""
        return any(process.returncode is None for process in self.ranks.values())

    async def results(self, timeout_s: float = 60.0) -> list[Any]:
        """What the ranks returned (None: it left without a word); raises RankFailed with the first failure's
        log."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.running():
                    for rank, process in self.ranks.items():
                        if process.returncode is not None:
                            self._result(rank)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            said = [await proxy.status() for proxy in self.proxies if not proxy.closed.is_set()]
            waiting = [f"node {one.index}: {op}" for one in said for op in one.pending]
            logs = [self.log(rank) for rank in range(self.size)]
            raise RankFailed("the ranks hang:\n" + "\n".join(waiting + logs)) from None
        return [self._result(rank) for rank in range(self.size)]

    def log(self, rank: int) -> str:
        return (self.folder / f"log{rank}").read_text(errors="replace")[-4000:]

    def _result(self, rank: int) -> Any:
        path = self.folder / f"result{rank}"
        if not path.exists() and self.ranks[rank].returncode == 0:
            return None
        if not path.exists():
            raise RankFailed(f"rank {rank} exited with {self.ranks[rank].returncode}:\n{self.log(rank)}")
        return pickle.loads(path.read_bytes())

    async def _proxy(self, index: int) -> ProxyHandle:
        leader = 0 in self.placement[index]
        config = ProxyConfig(
            job_id="test",
            epoch=self.epoch,
            index=index,
            world_size=self.size,
            listen_host="127.0.0.1",
            store_path=str(self.folder / "store"),
            leader=leader,
            run_dirs=(str(self.folder / "run"),),
            store=self.store if leader else {},
            devices={rank: self.devices[rank] for rank in self.placement[index] if rank in self.devices},
        )
        proxy = await ProxyHandle.start(config, self._zygote)
        for rank in self.placement[index]:
            with contextlib.suppress(Exception):
                await proxy.add_rank(rank, self.ranks[rank].pid)
        return proxy


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "TtZ"
    except OSError:
        return True
