"""GONE: the ranks are killed, the proxy ends, and nothing of the job stays on the node but, if wanted, its
results. The files are out of the way then, and removed after that (`trash.py`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from functools import partial
from pathlib import Path

from midstep.agent.deadlines import deadline_s
from midstep.agent.drivers import launch
from midstep.agent.drivers.cell import Home, unmount_home
from midstep.agent.drivers.launch import RankProcess
from midstep.agent.drivers.trees import copy_tree
from midstep.agent.orphans import find_orphans
from midstep.agent.steps.base import Job, blocking, step
from midstep.agent.transfer import remove_tree, tree_bytes
from midstep.model.phase import Phase

_KEPT = ("work", "logs")


async def end(job: Job, collect: bool) -> None:
    """Kill, keep what is wanted, remove. StepFailed: what remains is there for the next try."""
    job.save(phase=Phase.ENDING, tried=None, failure=None)
    async with step(job, "end", "kill", intact=False):
        await _kill(job)
    if job.flush_logs is not None:
        await job.flush_logs()
    if collect:
        async with step(job, "end", "collect", intact=False) as current:
            for home in homes_here(job):
                current.nbytes += await blocking(partial(_keep_home, job, home, current.limit_s))
    async with step(job, "end", "remove", intact=False):
        await blocking(partial(_discard_homes, job))
    job.save(phase=Phase.GONE, processes={}, frozen={}, cut=None, steps=tuple(job.steps))


async def remove_everything(job: Job) -> None:
    """End processes, proxy and files without a word: the rollback of a hold, and the way to make room for a
    newer epoch."""
    await _kill(job)
    await blocking(partial(_discard_homes, job))


async def _kill(job: Job) -> None:
    known = list(job.entry.processes.values())
    kills = [_kill_rank(p) for p in known]  # first: they take the longest
    await _all(*kills, stop_proxy(job), _kill_orphans(job, known))


async def kill_ranks(ranks: list[RankProcess]) -> None:
    """End these, all of them; the first error when not."""
    await _all(*map(_kill_rank, ranks))


async def _kill_orphans(job: Job, known: list[RankProcess]) -> None:
    orphans = await blocking(partial(find_orphans, homes_here(job), known))
    await kill_ranks(orphans)


async def _kill_rank(p: RankProcess) -> None:
    await blocking(partial(launch.kill, p, deadline_s("kill")))


async def _all(*work: Awaitable[None]) -> None:
    """All of it to its end, then the first error."""
    for error in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


async def stop_proxy(job: Job) -> None:
    """End the job's proxy here, if there is one."""
    proxy, job.proxy, job.proxy_port = job.proxy, None, 0
    if proxy is not None:
        await proxy.stop()


def homes_here(job: Job) -> list[Path]:
    """The homes of the job that lie on this node, in the record or not."""
    folder = job.means.journal.folder(job.entry.job_id)
    return sorted(folder.glob("home-*")) if folder.exists() else []


def _discard_homes(job: Job) -> None:
    for home in homes_here(job):
        unmount_home(Home(home))
        job.means.journal.trash.take(home)


def _keep_home(job: Job, home: Path, limit_s: float) -> int:
    """A results folder is whole or not there: an end that was interrupted after its rename does not do it
    again."""
    target = job.means.vault.results(job.entry.job_id) / home.name
    if target.exists():
        return 0
    partial_ = target.with_name(target.name + ".partial")
    remove_tree(partial_)
    partial_.mkdir(parents=True)
    for name in _KEPT:
        if (home / name).exists():
            copy_tree(home / name, partial_ / name, limit_s)
    nbytes = sum(tree_bytes(partial_).values())
    os.rename(partial_, target)
    return nbytes
