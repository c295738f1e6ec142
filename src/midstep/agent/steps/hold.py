"""HOLD: everything of the job is here and its proxy listens, but nothing runs yet.

Three ways: anew (homes with the work directory), from a snapshot (homes and stopped processes), or over the
processes that are here already (adopted as they are, under a new proxy).
"""

from __future__ import annotations

import asyncio
import base64
import os
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from midstep.agent.drivers import launch
from midstep.agent.drivers.cell import prepare_home
from midstep.agent.drivers.criu import RestoreSpec
from midstep.agent.drivers.trees import copy_tree
from midstep.agent.errors import StepFailed
from midstep.agent.journal import CudaRank, JobEntry
from midstep.agent.rankenv import passthrough
from midstep.agent.steps.base import Job, blocking, cpus_of, step
from midstep.agent.steps.cuda import refuse_full_devices
from midstep.agent.steps.end import remove_everything, stop_proxy
from midstep.agent.transfer import tree_bytes
from midstep.model.job import SnapshotRef
from midstep.model.phase import Failure, Fault, Phase
from midstep.proxy.config import ProxyConfig
from midstep.vault.snapshots import Manifest
from midstep.wire.agent import Assignment

_CUDA_RANKS = TypeAdapter(dict[int, CudaRank])


async def hold(job: Job, wanted: Assignment) -> None:
    """From nothing to HELD. StepFailed: nothing of this epoch is left."""
    source = wanted.source.snapshot_id if wanted.source else None
    job.save(phase=Phase.HOLDING, cut=source)
    job.means.journal.store_path(job.entry.job_id).unlink(missing_ok=True)  # of an epoch that came to nothing
    try:
        _refuse_split_homes(job.entry)
        if wanted.source is None:
            await _prepare(job)
        else:
            await _restore(job, wanted.source)
        await _start_proxy(job, wanted.store, wanted.epoch)
    except BaseException:
        await remove_everything(job)
        job.save(processes={}, exits={}, frozen={}, cuda={}, cut=None)
        raise
    job.save(phase=Phase.HELD, steps=tuple(job.steps))


async def adopt(job: Job, wanted: Assignment) -> None:
    """Take over the processes that are here, running or stopped. StepFailed: they are as they were, without a
    proxy."""
    job.save(
        epoch=wanted.epoch, phase=Phase.HOLDING, adopted=True, spec=wanted.spec, place=wanted.place, steps=(),
        failure=None, tried=None, target=None, store={}, nbytes=0,
    )  # fmt: skip
    await stop_proxy(job)
    await blocking(lambda: [_move_to(p, _cpus(job.entry, p.rank)) for p in job.entry.processes.values()])
    await _start_proxy(job, {}, wanted.epoch)
    job.save(phase=Phase.HELD, adopted=False, steps=tuple(job.steps))


async def _start_proxy(job: Job, store: dict[str, str], epoch: int) -> None:
    entry, means = job.entry, job.means
    config = ProxyConfig(
        job_id=entry.job_id,
        epoch=epoch,
        index=entry.place.index,
        world_size=entry.spec.world_size,
        listen_host=means.config.address,
        store_path=str(means.journal.store_path(entry.job_id)),
        leader=entry.place.index == 0,
        run_dirs=tuple(str(job.home(number).path / "run") for number in entry.homes),
        store={key: base64.b64decode(value) for key, value in store.items()},
    )
    async with step(job, "hold", "reconnect", intact=entry.adopted):
        job.proxy = await means.nursery.proxy(config)
        job.proxy_port = job.proxy.port


async def _prepare(job: Job) -> None:
    spec = job.entry.spec
    async with step(job, "hold", "copy", intact=False):
        for number in job.entry.homes:
            await blocking(partial(prepare_home, job.home(number), spec.uid, spec.gid))
    if spec.workdir_blob is None:
        return
    async with step(job, "hold", "fetch", intact=False) as current:
        for number in job.entry.homes:
            work = job.home(number).path / "work"
            fetch = partial(
                job.means.fetcher.workdir, spec.workdir_blob, work, spec.uid, spec.gid, current.limit_s
            )  # fmt: skip
            current.nbytes += await blocking(fetch)


async def _restore(job: Job, source: SnapshotRef) -> None:
    vault = job.means.vault
    async with step(job, "hold", "fetch", intact=False, nbytes=source.nbytes) as current:
        fetch = partial(job.means.fetcher.snapshot, source, vault, current.limit_s)
        current.nbytes = await blocking(fetch)
        manifest = vault.manifest(source.snapshot_id)
        folder = vault.path(source.snapshot_id)
        _refuse_in_place(manifest, job.entry)
    async with step(job, "hold", "copy", intact=False, nbytes=manifest.nbytes) as current:
        for number in job.entry.homes:
            current.nbytes += await blocking(partial(_bring_home, job, folder, number, current.limit_s))
        floors = {rank: _size(job.log(rank)) for rank in job.entry.ranks}
        frozen = _frozen_of(manifest, job.entry)
        job.save(log_floors=floors, frozen=frozen, cuda=_cuda_of(manifest, job.entry))
    async with step(job, "hold", "restore", intact=False, nbytes=manifest.nbytes) as current:
        ended = _exits_of(manifest)
        await refuse_full_devices(job)
        here = {rank: ended[rank] for rank in job.entry.ranks if rank in ended}
        job.save(exits=here)
        # All of them to their end before a rollback: a restore that is still running would leave a rank
        # behind it.
        runs = [_restore_rank(job, folder, r, current.limit_s) for r in job.entry.ranks if r not in here]
        results = await asyncio.gather(*runs, return_exceptions=True)
        current.nbytes = sum(n for n in results if isinstance(n, int))
        for error in results:
            if isinstance(error, BaseException):
                raise error


def _bring_home(job: Job, folder: Path, number: int, limit_s: float) -> int:
    home = job.home(number)
    prepare_home(home, job.entry.spec.uid, job.entry.spec.gid)
    return copy_tree(folder / f"home-{number}", home.path, limit_s).bytes


async def _restore_rank(job: Job, folder: Path, rank: int, limit_s: float) -> int:
    criu, images = job.means.criu, folder / f"rank-{rank}"
    if criu is None:
        raise _failed(
            "this node has no CRIU, so nothing can be restored here", "`midstep doctor --fix` installs it"
        )
    spec = RestoreSpec(
        rank, job.home_of(rank), _cpus(job.entry, rank), passthrough(job.means.config, job.entry.spec)
    )
    process = await blocking(partial(criu.restore, images, spec, limit_s))
    job.save(processes={**job.entry.processes, rank: process})
    return sum(tree_bytes(images).values())


def _frozen_of(manifest: Manifest, entry: JobEntry) -> dict[str, object]:
    """The freeze records of these ranks, whichever nodes dumped them."""
    stopped: dict[str, object] = {}
    for part in manifest.parts:
        found = part.frozen.get("stopped_before")
        stopped.update(found if isinstance(found, dict) else {})  # pyright: ignore[reportUnknownArgumentType]
    return {
        "stopped_before": {r: pids for r, pids in stopped.items() if int(r) in entry.ranks},
        "duration_s": 0.0,
    }


def _exits_of(manifest: Manifest) -> dict[int, int]:
    """Ranks that had ended at the cut."""
    ended: dict[int, int] = {}
    for part in manifest.parts:
        found = part.frozen.get("exits")
        if isinstance(found, dict):
            ended.update({int(rank): int(code) for rank, code in found.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return ended


def _cuda_of(manifest: Manifest, entry: JobEntry) -> dict[int, CudaRank]:
    """Those of these ranks that had left their devices, whichever nodes dumped them."""
    found = [_CUDA_RANKS.validate_python(part.frozen.get("cuda") or {}) for part in manifest.parts]
    return {rank: left for ranks in found for rank, left in ranks.items() if rank in entry.ranks}


def _refuse_in_place(manifest: Manifest, entry: JobEntry) -> None:
    for part in manifest.parts:
        if "in_place" in part.frozen and set(part.ranks) & set(entry.ranks):
            raise _failed(
                f"the job was frozen in place on node {part.frozen['in_place']}; its processes are not here",
                "without CRIU a job can be resumed only where it was suspended, and not after a reboot",
            )


def _refuse_split_homes(entry: JobEntry) -> None:
    for number in entry.homes:
        here = [r for r in entry.place.ranks if r.home == number]
        if len(here) != here[0].local_world_size:
            raise _failed(
                f"{len(here)} of the {here[0].local_world_size} ranks of home {number} are placed here",
                "ranks that share a home see the same files, so they must be on one node",
            )


def _failed(message: str, hint: str) -> StepFailed:
    return StepFailed(Failure("restore", message, Fault.NODE, intact=False, hint=hint))


def _cpus(entry: JobEntry, rank: int) -> tuple[int, ...]:
    return cpus_of(next(r for r in entry.place.ranks if r.rank == rank))


def _move_to(process: launch.RankProcess, cpus: tuple[int, ...]) -> None:
    for pid in launch.processes(process):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
