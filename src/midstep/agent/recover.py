"""After the agent was killed: what the record says, what the machine says, and what is true now.

| phase in the record | what is done | phase after |
| --- | --- | --- |
| HOLDING, adopted | only what was being restored beside the processes is removed | PROXY_LOST |
| HOLDING | everything of it is removed | FAILED (transient) |
| HELD, RUNNING | nothing; the proxy died with the agent | PROXY_LOST |
| STARTING | unrecorded ranks are found; if some were never started, all are ended | PROXY_LOST or FAILED |
| DUMPING | CRIU is waited for, the ranks go on, the partial files go | FAILED, intact unless ranks are gone |
| others | nothing | the same |
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from midstep.agent.deadlines import deadline_s
from midstep.agent.drivers import errors as drivers
from midstep.agent.drivers import freeze, launch
from midstep.agent.errors import StepFailed
from midstep.agent.journal import Aim, boot_id
from midstep.agent.orphans import await_criu, find_orphans
from midstep.agent.steps.base import Job, blocking
from midstep.agent.steps.change import remove_strangers
from midstep.agent.steps.dump import roll_back
from midstep.agent.steps.end import remove_everything
from midstep.model.phase import Failure, Fault, Goal, Phase

_CRIU_S = 30.0
_log = logging.getLogger(__name__)


async def recover(job: Job) -> None:
    """Bring a record read at the start of the agent in line with the machine."""
    before = job.entry.phase
    if job.entry.boot != boot_id():
        await _after_reboot(job)
    match job.entry.phase:
        case Phase.HOLDING if job.entry.adopted:
            await _undo_change(job)
        case Phase.HOLDING:
            await _undo_hold(job)
        case Phase.STARTING:
            await _finish_start(job)
        case Phase.HELD | Phase.RUNNING:
            job.save(phase=Phase.PROXY_LOST)
        case Phase.DUMPING:
            await _undo_dump(job)
        case Phase.DUMPED | Phase.ENDING | Phase.GONE | Phase.FAILED | Phase.PROXY_LOST:
            pass
    _log.info("job %s epoch %d: was %s, is %s", job.entry.job_id, job.entry.epoch, before, job.entry.phase)


async def _after_reboot(job: Job) -> None:
    """No process of before is there. Ranks that had not ended were lost; numbers may have been given to
    others."""
    if job.entry.phase is not Phase.DUMPED:
        job.take_exits(job.entry.processes.values())
    job.save(processes={}, frozen={}, boot=boot_id())


async def _undo_hold(job: Job) -> None:
    if job.entry.cut is not None:
        await blocking(partial(await_criu, _images(job, job.entry.cut, job.entry.ranks), _CRIU_S))
    await remove_everything(job)
    _interrupted(job, Goal.HOLD, "restore" if job.entry.cut else "copy", intact=False)
    job.save(processes={}, exits={}, frozen={}, cut=None)


async def _undo_change(job: Job) -> None:
    """Those that were here before stand or run as they did."""
    if job.entry.cut is not None and job.entry.coming:
        await blocking(partial(await_criu, _images(job, job.entry.cut, job.entry.coming), _CRIU_S))
    await remove_strangers(job, ())
    job.save(phase=Phase.PROXY_LOST, adopted=False, coming=())


async def _finish_start(job: Job) -> None:
    """A fresh start that got to every rank is as good as any; one that did not is ended, nothing of it was
    reported."""
    entry = job.entry
    known = list(entry.processes.values())
    homes = [job.home(number).path for number in entry.homes]
    found = {p.rank: p for p in await blocking(partial(find_orphans, homes, known))}
    processes = {**entry.processes, **found}
    ended = [
        r for r in entry.ranks if r not in processes and launch.exit_status(job.home_of(r), r) is not None
    ]
    missing = set(entry.ranks) - set(processes) - set(ended) - set(entry.exits)
    if not missing:
        codes = {rank: launch.exit_status(job.home_of(rank), rank) or 0 for rank in ended}
        job.save(phase=Phase.PROXY_LOST, processes=processes, exits={**codes, **entry.exits})
        return
    for process in processes.values():
        await blocking(partial(launch.kill, process, deadline_s("kill")))
    job.save(processes={}, exits={})
    _interrupted(job, Goal.RUN, "launch", intact=False)


async def _undo_dump(job: Job) -> None:
    """CRIU may still be at work on ranks that it holds: it ends by itself, and leaves them stopped."""
    entry = job.entry
    assert entry.target is not None
    dumped = [p.init_pid for p in entry.processes.values()]  # into memory that went with the agent, perhaps
    await blocking(partial(await_criu, _images(job, entry.target, entry.ranks), _CRIU_S, dumped))
    ranks = [p for p in entry.processes.values() if launch.alive(p)]
    intact = True
    try:
        if (
            not entry.frozen
        ):  # died in the freeze: going through with it tells what the job had stopped itself
            frozen = await blocking(partial(freeze.freeze, ranks, deadline_s("freeze")))
            job.save(frozen=frozen.to_json())
        await roll_back(job)
        job.take_exits([p for p in entry.processes.values() if not launch.alive(p)])
    except (drivers.DriverError, OSError, StepFailed) as error:
        _log.warning("job %s: the interrupted dump is not undone: %s", entry.job_id, error)
        intact = False
    if job.entry.phase is Phase.FAILED:
        return  # ranks went with the agent
    _interrupted(job, Goal.DUMP, "dump", intact=intact, target=entry.target)


def _interrupted(job: Job, goal: Goal, step: str, *, intact: bool, target: str | None = None) -> None:
    failure = Failure(step, "the node's agent was killed in the middle of it", Fault.TRANSIENT, intact)
    job.save(phase=Phase.FAILED, failure=failure, tried=Aim(job.entry.epoch, goal, target), steps=())


def _images(job: Job, snapshot_id: str, ranks: tuple[int, ...]) -> list[Path]:
    vault = job.means.vault
    folder = vault.path(snapshot_id) if vault.exists(snapshot_id) else vault.stage(snapshot_id)
    return [folder / f"rank-{rank}" for rank in ranks]
