"""DUMP: the job's share on this node stands still, at a cut, and is in the vault; its processes are still
here, stopped.

A checkpoint's part (``keep``) is made in memory (`midstep.agent.drivers.pages`), and stored when the ranks
run on.

for checkpoints lighten (a step is ended, freed memory given back) -> on GPUs lock and checkpoint (device
state in host memory), then freeze (nothing new can be posted) -> drain (what all had posted is done; nothing
is on its way) -> dump (process images) -> store (homes copied, part written). Anything that fails before
the end is undone and the ranks go on.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from midstep.agent.deadlines import deadline_s
from midstep.agent.drivers import cuda, freeze
from midstep.agent.drivers.cell import home_seen_by
from midstep.agent.drivers.criu import Criu
from midstep.agent.drivers.errors import DriverError
from midstep.agent.drivers.launch import RankProcess, alive, processes
from midstep.agent.drivers.pages import Pages
from midstep.agent.drivers.trees import copy_tree
from midstep.agent.errors import StepFailed
from midstep.agent.staging import discard, store
from midstep.agent.steps.base import Job, blocking, step
from midstep.agent.steps.cuda import leave_devices, roll_back_devices
from midstep.agent.transfer import remove_tree, tree_bytes
from midstep.model.phase import Phase, StepTiming
from midstep.proxy.lighten import lighten
from midstep.proxy.report import Drained
from midstep.vault.snapshots import Part
from midstep.wire.agent import Assignment

_AT_ONCE = 2  # CRIU is one thread a rank; more of them only share the disk


async def dump(job: Job, wanted: Assignment) -> None:
    """From RUNNING to DUMPED. All stand still; in the vault are only the homes that leave, if the order says
    which. StepFailed: rolled back, the ranks go on as before."""
    assert wanted.target is not None, "a DUMP names its target"
    drop_made(job)
    job.save(
        phase=Phase.DUMPING, target=wanted.target, tried=None, failure=None, steps=(), store={}, nbytes=0,
        stored=None, not_stored="",
    )  # fmt: skip
    try:
        if wanted.keep:  # nobody waits for its devices: it can choose its moment
            await _prepare(job, wanted.target)
            await _lighten(job)
        device_bytes = await leave_devices(job)
        frozen = await _freeze(job)
        drained = await _drain(job, device_bytes)
        nbytes = await _write_part(job, wanted, frozen)
    except BaseException as error:
        intact = not isinstance(error, StepFailed) or error.failure.intact
        ran = isinstance(error, StepFailed) and error.failure.step.startswith("cuda-")
        await roll_back(job, thaw=intact, froze=not ran)
        raise
    store = {key: base64.b64encode(value).decode() for key, value in (drained.store or {}).items()}
    job.save(phase=Phase.DUMPED, cut=wanted.target, store=store, nbytes=nbytes, steps=tuple(job.steps))


async def roll_back(job: Job, thaw: bool = True, froze: bool = True) -> None:
    """Undo a dump that was begun: its files go, the ranks go on. Not ``froze``: they are not stopped yet, and
    what the job itself has stopped must stay so."""
    entry = job.entry
    drop_made(job)
    if entry.target is not None and not job.means.vault.exists(entry.target):
        folder = job.means.vault.stage(entry.target)
        (folder / f"part-{entry.place.index}.json").unlink(missing_ok=True)
        for name in (*(f"rank-{r}" for r in entry.ranks), *(f"home-{h}" for h in entry.homes)):
            await blocking(partial(remove_tree, folder / name))
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless other nodes have parts in it
    if thaw:
        if froze:
            await blocking(partial(freeze.thaw, list(entry.processes.values()), frozen_record(job)))
        await roll_back_devices(job)
        job.save(frozen={}, cut=None)


def drop_made(job: Job) -> None:
    """Something else is wanted of the job: a part that is still in memory is of no use any more."""
    made, job.made = job.made, None
    if made is not None:
        discard(made)


async def store_part(job: Job) -> None:
    """Bring the part that was made at the cut into the vault, while the ranks run on."""
    made = job.made
    assert made is not None
    begun_s = time.monotonic()
    limit_s = deadline_s("store", made.part.nbytes)
    try:
        nbytes, cpu_s = await blocking(partial(store, made, job.means.vault, limit_s))
    except Exception as error:
        if job.made is made:
            job.made = None
            job.save(not_stored=str(error) or type(error).__name__)
        return
    if job.made is made:
        job.made = None
        job.steps += [StepTiming("keep", time.monotonic() - begun_s, nbytes), StepTiming("keep-cpu", cpu_s)]
        job.save(stored=made.target, steps=tuple(job.steps))


def frozen_record(job: Job) -> freeze.Frozen:
    """What was stopped when the ranks were frozen; an agent that died in between relies on the driver's own
    note."""
    if not job.entry.frozen:
        return freeze.Frozen({}, 0.0)
    return freeze.Frozen.from_json(job.entry.frozen)


async def _prepare(job: Job, target: str) -> None:
    """Get memory, while the ranks run."""
    entry, staging = job.entry, job.means.staging
    if job.means.criu is None:
        return
    begun_s = time.monotonic()
    sizes = {rank: _memory_bytes(p) for rank, p in entry.processes.items()}
    others = _home_bytes(job, entry.homes)
    if cuda.machine_has_gpus():
        others, sizes = others + sum(sizes.values()), {}
    job.made = await blocking(partial(staging.begin, target, entry.place.index, sizes, others))
    job.steps.append(StepTiming("prepare", time.monotonic() - begun_s))


async def _lighten(job: Job) -> None:
    """Ranks that stand still since a cut before this one make no steps."""
    if job.entry.frozen or job.means.criu is None:
        return
    begun_s = time.monotonic()
    ranks = {p.init_pid: p for p in job.entry.processes.values() if alive(p)}
    limit_s, early = deadline_s("freeze"), not cuda.machine_has_gpus()  # whose driver works on what runs

    def ready(root: int) -> None:
        """Where it is now is where it should be dumped; the freeze of all finds it stopped."""
        with contextlib.suppress(DriverError):
            if early:
                freeze.freeze([ranks[root]], limit_s)

    if await blocking(partial(lighten, ranks, ready)):
        job.steps.append(StepTiming("lighten", time.monotonic() - begun_s))


async def _freeze(job: Job) -> freeze.Frozen:
    _take_exits(job)
    ranks = list(job.entry.processes.values())
    if job.entry.frozen:  # stopped already, since a restore or a dump before this one
        return frozen_record(job)
    async with step(job, "dump", "freeze", intact=True) as current:
        frozen = await blocking(partial(freeze.freeze, ranks, current.limit_s))
        _take_exits(job)
        job.save(frozen=frozen.to_json())
    return frozen


def _take_exits(job: Job) -> None:
    """A rank may have ended since anyone looked: it has no image then, only a status."""
    if gone := [p for p in job.entry.processes.values() if not alive(p)]:
        job.take_exits(gone)
    if job.entry.phase is Phase.FAILED and job.entry.failure is not None:
        raise StepFailed(job.entry.failure)


async def _drain(job: Job, device_bytes: int) -> Drained:
    """The other nodes' markers come after their ranks have left their devices: about as long as ours took."""
    assert job.proxy is not None
    async with step(job, "dump", "drain", intact=True, nbytes=device_bytes) as current:
        return await job.proxy.drain(current.limit_s)


async def _write_part(job: Job, wanted: Assignment, frozen: freeze.Frozen) -> int:
    """Into the vault; into memory, if the ranks go on soon."""
    entry, vault, target = job.entry, job.means.vault, wanted.target
    assert target is not None
    homes = entry.homes if wanted.leaving is None else wanted.leaving
    ranks = tuple(rank for rank in entry.ranks if entry.home_of(rank) in homes)
    record: dict[str, object] = {
        **frozen.to_json(),
        "exits": {str(r): code for r, code in entry.exits.items()},
        "cuda": {str(r): asdict(rank) for r, rank in entry.cuda.items()},
    }
    made, files = job.made, dict[str, int]()
    folder, pages = (made.folder, made.pages) if made else (vault.stage(target), {})
    if job.means.criu is None:
        record["in_place"] = job.means.config.name
    else:
        if homes:
            await _dump_ranks(job, job.means.criu, folder, ranks, pages)
        home_bytes = await blocking(partial(_home_bytes, job, homes))
        async with step(job, "dump", "store", intact=True, nbytes=home_bytes) as current:
            for number in homes:
                await blocking(partial(_store_home, job, number, folder, current.limit_s))
            files = await blocking(partial(_files_of, folder, ranks, homes))
            for rank in set(pages) & set(ranks):
                files |= {f"rank-{rank}/{name}": size for name, size in pages[rank].sizes.items()}
            current.nbytes = sum(n for name, n in files.items() if name.startswith("home-"))
    nbytes = sum(files.values())
    part = Part(entry.place.index, ranks, homes, nbytes, files, record)
    if made is not None:
        job.made = replace(made, part=part)
    else:
        await blocking(partial(vault.put_part, target, part))
        if wanted.keep:
            job.save(stored=target)
    return nbytes


async def _dump_ranks(
    job: Job, criu: Criu, folder: Path, those: tuple[int, ...], pages: dict[int, Pages]
) -> None:
    # One that was killed while it stood still fails the dump.
    ranks = [p for rank, p in job.entry.processes.items() if rank in those]
    turn = asyncio.Semaphore(_AT_ONCE)
    expected = sum(map(_memory_bytes, ranks))
    async with step(job, "dump", "dump", intact=True, nbytes=expected) as current:

        async def one(p: RankProcess) -> int:
            async with turn:
                images, own = folder / f"rank-{p.rank}", pages.get(p.rank)
                dumped = await blocking(partial(criu.dump, p, images, current.limit_s, own))
                return dumped.bytes

        # All of them to their end before a rollback: CRIU must not work on a rank that is thawed.
        results = await asyncio.gather(*map(one, ranks), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            current.nbytes += result


def _store_home(job: Job, number: int, folder: Path, limit_s: float) -> None:
    """Copied as a rank sees it: the mounts of an agent before this one may not be ours."""
    home = job.home(number).path
    for p in job.entry.processes.values():
        if job.entry.home_of(p.rank) == number and alive(p):
            home = home_seen_by(p.init_pid)
    copy_tree(home, folder / f"home-{number}", limit_s)


def _files_of(folder: Path, ranks: tuple[int, ...], homes: tuple[int, ...]) -> dict[str, int]:
    names = (*(f"rank-{r}" for r in ranks), *(f"home-{h}" for h in homes))
    return {f"{name}/{path}": n for name in names for path, n in tree_bytes(folder / name).items()}


def _home_bytes(job: Job, homes: tuple[int, ...]) -> int:
    return sum(n for number in homes for n in tree_bytes(job.home(number).path).values())


def _memory_bytes(p: RankProcess) -> int:
    """About what a dump will write: the resident pages of all its processes."""
    total = 0
    for pid in processes(p):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total
