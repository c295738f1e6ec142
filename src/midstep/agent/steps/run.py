"""RUN: the proxy knows its peers, and the ranks run: started for the first time, or let go on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from midstep.agent.drivers import freeze, launch
from midstep.agent.orphans import find_orphans
from midstep.agent.rankenv import passthrough, rank_environment
from midstep.agent.steps.base import Job, blocking, cpus_of, step
from midstep.agent.steps.cuda import enter_devices
from midstep.agent.steps.dump import frozen_record
from midstep.model.job import RankPlace
from midstep.model.phase import Phase
from midstep.proxy.errors import ProxyError
from midstep.proxy.handle import ProxyHandle
from midstep.proxy.peers import Peer
from midstep.wire.agent import Assignment


async def start(job: Job, wanted: Assignment) -> None:
    """From HELD to RUNNING. StepFailed: ranks that were started are ended; those that were here before stay
    stopped."""
    assert job.proxy is not None
    fresh = not job.entry.processes and not job.entry.exits
    job.save(phase=Phase.STARTING, spec=wanted.spec)
    peers = [Peer(p.index, p.host, p.port, p.ranks, leader=p.index == 0) for p in wanted.peers]
    async with step(job, "run", "reconnect", intact=not fresh):
        ended = set(job.entry.exits)
        for process in job.entry.processes.values():
            if not await _serve_rank(job, job.proxy, process):
                ended.add(process.rank)
        await job.proxy.connect(peers, ended=sorted(ended))
    if fresh:
        await _launch(job)
    else:
        await _thaw(job)
    job.save(phase=Phase.RUNNING, tried=None, failure=None, steps=tuple(job.steps))


async def resume(job: Job) -> None:
    """From DUMPED, or from a dump that failed, back to RUNNING under the same proxy."""
    assert job.proxy is not None
    job.save(phase=Phase.STARTING)
    async with step(job, "run", "reconnect", intact=True):
        await job.proxy.undrain()
    await _thaw(job)
    job.save(phase=Phase.RUNNING, tried=None, failure=None, target=None, steps=tuple(job.steps))


async def _thaw(job: Job) -> None:
    ranks, frozen = list(job.entry.processes.values()), frozen_record(job)
    async with step(job, "run", "thaw", intact=True):
        job.save(
            cut=None
        )  # before it is untrue: who reads this later must not take moving ranks for that cut
        await blocking(partial(freeze.thaw, ranks, frozen))
    job.save(frozen={})
    await enter_devices(job)


async def _launch(job: Job) -> None:
    assert job.proxy is not None
    async with step(job, "run", "launch", intact=False):
        try:
            for place in job.entry.place.ranks:
                process = await blocking(partial(launch.launch, _launch_of(job, place)))
                job.save(processes={**job.entry.processes, place.rank: process})
                await _serve_rank(job, job.proxy, process)
        except BaseException:
            await blocking(partial(_kill_all, job))
            job.save(processes={})
            raise


async def _serve_rank(job: Job, proxy: ProxyHandle, process: launch.RankProcess) -> bool:
    """Whether it needs to be served: a rank that has ended already does not."""
    try:
        await proxy.add_rank(process.rank, process.init_pid)
    except ProxyError:
        if launch.alive(process) or not job.proxy_lives:
            raise
        return False
    return True


def _launch_of(job: Job, place: RankPlace) -> launch.RankLaunch:
    entry, config = job.entry, job.means.config
    spec = entry.spec
    return launch.RankLaunch(
        job_id=entry.job_id,
        rank=place.rank,
        argv=spec.command,
        env=rank_environment(config, entry.job_id, spec, place, entry.place.ranks),
        uid=spec.uid,
        gid=spec.gid,
        cpus=cpus_of(place),
        home=job.home(place.home),
        passthrough=passthrough(config, spec),
    )


def _kill_all(job: Job) -> None:
    known = list(job.entry.processes.values())
    homes: list[Path] = [job.home(number).path for number in job.entry.homes]
    for process in (*known, *find_orphans(homes, known)):
        launch.kill(process)
