"""Jobs as the agent starts them, without the agent: the runtime is injected, real proxies serve the ranks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midstep.model.launch import RankPlace, rank_environment
from tests.proxy.harness import ROOT, Fleet, RankFailed

INJECT = ROOT / "src" / "midstep" / "runtime" / "inject"
SCRIPTS = Path(__file__).parent / "scripts"


def injected(run_dir: Path, **environment: str) -> dict[str, str]:
    """The environment of a process of a job: this one's, without its Python path, and the runtime."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(INJECT), *filter(None, [environment.pop("PYTHONPATH", "")])]
    return {
        **inherited,
        "MIDSTEP_RUN": str(run_dir),
        "MIDSTEP_DEBUG": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }


class Job(Fleet):
    """Ranks that run a command of their own, and the proxies of their nodes."""

    environment: Mapping[str, str] = {}  # beside what the agent sets

    async def start_ranks(self, target: str, *args: Any) -> None:
        """``target``: a script; what it prints to standard output is its result."""
        for rank in range(self.size):
            place = RankPlace(rank, self.size, self.size)
            environment = (
                rank_environment(place, "test") | {"OPENBLAS_NUM_THREADS": "1"} | dict(self.environment)
            )
            environment = {name: value for name, value in environment.items() if value}
            with (
                (self.folder / f"out{rank}").open("wb") as out,
                (self.folder / f"log{rank}").open("wb") as log,
            ):
                self.ranks[rank] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    target,
                    *map(str, args),
                    env=injected(self.folder / "run", **environment),
                    cwd=self.folder,
                    stdout=out,
                    stderr=log,
                )

    def _result(self, rank: int) -> Any:
        code = self.ranks[rank].returncode
        if code:
            raise RankFailed(f"rank {rank} exited with {code}:\n{self.log(rank)}")
        return json.loads((self.folder / f"out{rank}").read_text() or "null")


def script(name: str) -> str:
    """One of the scripts beside this file."""
    return str(SCRIPTS / name)


async def run_plain(folder: Path, size: int, target: str, *args: Any, timeout_s: float = 120.0) -> list[Any]:
    """The same script without Midstep: gloo over loopback. Raises RankFailed with what the ranks said.

    gloo itself aborts now and then, when the other rank has left a moment before; then it is run again.
    """
    for _ in range(2):
        try:
            return await _run_plain(folder, size, target, *args, timeout_s=timeout_s)
        except RankFailed as failed:
            if f"exited with {-signal.SIGABRT} " not in str(failed):
                raise
    return await _run_plain(folder, size, target, *args, timeout_s=timeout_s)


async def _run_plain(folder: Path, size: int, target: str, *args: Any, timeout_s: float) -> list[Any]:
    """The rendezvous store is this process's, as with torchrun: it has its port before any rank starts, so
    that nobody can take it, and it outlives every rank, so that the first to end takes nothing from others.
    """
    import torch.distributed as dist

    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    processes = [await _plain_rank(folder, rank, size, store.port, target, *args) for rank in range(size)]
    try:
        async with asyncio.timeout(timeout_s):
            codes = [await process.wait() for process in processes]
    except TimeoutError:
        codes = [process.returncode for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if codes != [0] * size:
        said = [
            f"rank {rank} exited with {code} (None: not in {timeout_s:g} s):\n"
            f"{(folder / f'plain{rank}.log').read_text(errors='replace')[-4000:]}"
            for rank, code in enumerate(codes)
        ]
        raise RankFailed("without Midstep:\n" + "\n".join(said))
    return [json.loads((folder / f"plain{rank}").read_text() or "null") for rank in range(size)]


async def _plain_rank(
    folder: Path, rank: int, size: int, port: int, target: str, *args: Any
) -> asyncio.subprocess.Process:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MIDSTEP_RUN")
    }
    environment |= rank_environment(RankPlace(rank, size, size), "plain", port)
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    with (folder / f"plain{rank}").open("wb") as out, (folder / f"plain{rank}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, target, *map(str, args), env=environment, stdout=out, stderr=log, cwd=folder
        )
