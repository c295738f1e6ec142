"""HOLD: everything of the job is here and its proxy listens, but nothing runs yet.

Three ways: anew (homes with the work directory), from a snapshot (homes and stopped processes), or over the
processes that are here already (adopted as they are, under a new proxy).
"""

from __future__ import annotations

import base64
import os
from functools import partial

from midstep.agent.drivers import launch
from midstep.agent.drivers.cell import prepare_home
from midstep.agent.gpus import gpus_of
from midstep.agent.journal import JobEntry
from midstep.agent.steps.arrive import Arrival, restore, restore_failed
from midstep.agent.steps.base import Job, blocking, cpus_of, step
from midstep.agent.steps.cuda import refuse_full_devices
from midstep.agent.steps.end import remove_everything, stop_proxy
from midstep.model.phase import Phase
from midstep.proxy.config import ProxyConfig
from midstep.wire.agent import Assignment


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
            await restore(job, wanted.source, wanted.place.ranks, lambda news: _note(job, news))
        await start_proxy(job, wanted.store, wanted.epoch)
    except BaseException:
        await remove_everything(job)
        job.save(processes={}, exits={}, frozen={}, cuda={}, cut=None)
        raise
    job.save(phase=Phase.HELD, steps=tuple(job.steps))


async def _note(job: Job, news: Arrival) -> None:
    """What has been restored so far, for an agent that comes after this one."""
    frozen = {"stopped_before": news.stopped, "duration_s": 0.0}
    processes = dict(news.processes)
    job.save(log_floors=news.floors, frozen=frozen, cuda=news.cuda, exits=news.exits, processes=processes)
    if not news.processes:
        await refuse_full_devices(job)


async def adopt(job: Job, wanted: Assignment) -> None:
    """Take over the processes that are here, running or stopped. StepFailed: they are as they were, without a
    proxy."""
    job.save(
        epoch=wanted.epoch, phase=Phase.HOLDING, adopted=True, spec=wanted.spec, place=wanted.place, steps=(),
        failure=None, tried=None, target=None, store={}, nbytes=0,
    )  # fmt: skip
    await stop_proxy(job)
    await adapt(job, wanted)
    job.save(phase=Phase.HELD, adopted=False, steps=tuple(job.steps))


async def adapt(job: Job, wanted: Assignment) -> None:
    """The processes that are here, to the devices of their place, under a new proxy."""
    await blocking(lambda: [_move_to(p, _cpus(job.entry, p.rank)) for p in job.entry.processes.values()])
    await refuse_full_devices(job)
    if wanted.source is not None:  # at a cut: what this node has of the store may be of an epoch before it
        job.means.journal.store_path(job.entry.job_id).unlink(missing_ok=True)
    await start_proxy(job, wanted.store if wanted.source is not None else {}, wanted.epoch)


async def start_proxy(job: Job, store: dict[str, str], epoch: int) -> None:
    """A proxy that listens, for the ranks that are placed here."""
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
        devices={place.rank: place.devices for place in entry.place.ranks},
        take_turns=not any(gpus_of(means.config, place, entry.place.ranks) for place in entry.place.ranks),
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


def _refuse_split_homes(entry: JobEntry) -> None:
    for number in entry.homes:
        here = [r for r in entry.place.ranks if r.home == number]
        if len(here) != here[0].local_world_size:
            raise restore_failed(
                f"{len(here)} of the {here[0].local_world_size} ranks of home {number} are placed here",
                "ranks that share a home see the same files, so they must be on one node",
            )


def _cpus(entry: JobEntry, rank: int) -> tuple[int, ...]:
    return cpus_of(next(r for r in entry.place.ranks if r.rank == rank))


def _move_to(process: launch.RankProcess, cpus: tuple[int, ...]) -> None:
    for pid in launch.processes(process):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)
        except (FileNotFoundError, ProcessLookupError):
            continue
