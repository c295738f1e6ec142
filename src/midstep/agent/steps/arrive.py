"""Ranks and their homes out of a snapshot: files first, then the processes, which stay stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import TypeAdapter

from midstep.agent.carrier import RETRY_S, Tell
from midstep.agent.drivers.cell import prepare_home
from midstep.agent.drivers.criu import RestoreSpec
from midstep.agent.drivers.launch import RankProcess
from midstep.agent.drivers.trees import copy_tree
from midstep.agent.errors import StepFailed, TransferError
from midstep.agent.journal import CudaRank
from midstep.agent.rankenv import passthrough
from midstep.agent.steps.base import Job, blocking, cpus_of, step
from midstep.agent.transfer import tree_bytes
from midstep.model.job import RankPlace, SnapshotRef
from midstep.model.phase import Doing, Failure, Fault
from midstep.vault.snapshots import Manifest

if TYPE_CHECKING:
    from midstep.vault.archive.shipping import Shipped

_CUDA_RANKS = TypeAdapter(dict[int, CudaRank])


@dataclass(slots=True)
class Arrival:
    """What has come of some ranks. ``floors``: rank -> its log's bytes at the cut; ``stopped``: processes
    that the job itself had stopped."""

    processes: dict[int, RankProcess] = field(default_factory=dict[int, RankProcess])
    exits: dict[int, int] = field(default_factory=dict[int, int])
    floors: dict[int, int] = field(default_factory=dict[int, int])
    stopped: dict[str, object] = field(default_factory=dict[str, object])
    cuda: dict[int, CudaRank] = field(default_factory=dict[int, CudaRank])


Note = Callable[[Arrival], Awaitable[None]]


async def restore(job: Job, source: SnapshotRef, places: Sequence[RankPlace], note: Note) -> Arrival:
    """Bring these ranks here. ``note`` is told before the first process and after each. StepFailed: some of
    them may be here, for the caller to remove."""
    vault = job.means.vault
    ranks, homes = {r.rank for r in places}, sorted({r.home for r in places})
    if source.region != job.means.config.region:
        await _transfer(job, source)
    async with step(job, "hold", "fetch", intact=False, nbytes=source.nbytes) as current:
        fetch = partial(job.means.fetcher.snapshot, source, vault, current.limit_s, ranks, homes)
        current.nbytes = await blocking(fetch)
        manifest = vault.manifest(source.snapshot_id)
        folder = vault.path(source.snapshot_id)
        _refuse_what_is_not_there(manifest, ranks)
    arrival = Arrival(exits=_exits_of(manifest, ranks), stopped=_stopped(manifest, ranks))
    async with step(job, "hold", "copy", intact=False, nbytes=manifest.nbytes) as current:
        for number in homes:
            current.nbytes += await blocking(partial(_bring_home, job, folder, number, current.limit_s))
        arrival.floors = {r.rank: _size(job.home(r.home).log(r.rank)) for r in places}
        arrival.cuda = _cuda_of(manifest, ranks)
    async with step(job, "hold", "restore", intact=False, nbytes=manifest.nbytes) as current:
        await note(arrival)
        runs = [
            _restore_rank(job, folder, r, current.limit_s, arrival, note)
            for r in places
            if r.rank not in arrival.exits
        ]
        # All of them to their end before a rollback: a restore that is still running would leave a rank
        # behind it.
        results = await asyncio.gather(*runs, return_exceptions=True)
        current.nbytes = sum(n for n in results if isinstance(n, int))
        for error in results:
            if isinstance(error, BaseException):
                raise error
    return arrival


async def _transfer(job: Job, source: SnapshotRef) -> None:
    """Have the snapshot in this region's archive."""
    loop = asyncio.get_running_loop()

    def tell(done_bytes: int, left_bytes: int) -> None:
        job.doing = Doing("transfer", done_bytes, left_bytes)
        if job.on_save is not None:
            loop.call_soon_threadsafe(job.on_save)

    async with step(job, "hold", "transfer", intact=False, nbytes=source.nbytes) as current:
        done = await _bring(job, source, loop.time() + current.limit_s, tell)
        current.nbytes, current.known_bytes = done.sent_bytes, done.known_bytes


async def _bring(job: Job, source: SnapshotRef, end_s: float, tell: Tell) -> Shipped:
    """As often as the connection breaks off, until the time is over: what has come need not come again."""
    loop = asyncio.get_running_loop()
    while True:
        left_s = max(0.0, end_s - loop.time())
        try:
            return await blocking(partial(job.means.carrier.bring, source, job.means.vault, left_s, tell))
        except TransferError:
            if loop.time() + RETRY_S > end_s:
                raise
            await asyncio.sleep(RETRY_S)


def restore_failed(message: str, hint: str) -> StepFailed:
    """This node cannot have these ranks."""
    return StepFailed(Failure("restore", message, Fault.NODE, intact=False, hint=hint))


def _bring_home(job: Job, folder: Path, number: int, limit_s: float) -> int:
    home = job.home(number)
    prepare_home(home, job.entry.spec.uid, job.entry.spec.gid)
    return copy_tree(folder / f"home-{number}", home.path, limit_s).bytes


async def _restore_rank(
    job: Job, folder: Path, place: RankPlace, limit_s: float, arrival: Arrival, note: Note
) -> int:
    criu, images = job.means.criu, folder / f"rank-{place.rank}"
    if criu is None:
        raise restore_failed(
            "this node has no CRIU, so nothing can be restored here", "`midstep doctor --fix` installs it"
        )
    through = passthrough(job.means.config, job.entry.spec)
    spec = RestoreSpec(place.rank, job.home(place.home), cpus_of(place), through)
    arrival.processes[place.rank] = await blocking(partial(criu.restore, images, spec, limit_s))
    await note(arrival)
    return sum((await blocking(partial(tree_bytes, images))).values())


def _stopped(manifest: Manifest, ranks: set[int]) -> dict[str, object]:
    """The freeze records of these ranks, whichever nodes dumped them."""
    stopped: dict[str, object] = {}
    for part in manifest.parts:
        found = part.frozen.get("stopped_before")
        stopped.update(cast("dict[str, object]", found) if isinstance(found, dict) else {})
    return {rank: pids for rank, pids in stopped.items() if int(rank) in ranks}


def _exits_of(manifest: Manifest, ranks: set[int]) -> dict[int, int]:
    """Those of these ranks that had ended at the cut."""
    ended: dict[int, int] = {}
    for part in manifest.parts:
        found = part.frozen.get("exits")
        if isinstance(found, dict):
            pairs = cast("dict[str, int]", found).items()
            ended.update({int(rank): int(code) for rank, code in pairs if int(rank) in ranks})
    return ended


def _cuda_of(manifest: Manifest, ranks: set[int]) -> dict[int, CudaRank]:
    """Those of these ranks that had left their devices, whichever nodes dumped them."""
    found = [_CUDA_RANKS.validate_python(part.frozen.get("cuda") or {}) for part in manifest.parts]
    return {rank: left for those in found for rank, left in those.items() if rank in ranks}


def _refuse_what_is_not_there(manifest: Manifest, ranks: set[int]) -> None:
    for part in manifest.parts:
        if "in_place" in part.frozen and set(part.ranks) & ranks:
            raise restore_failed(
                f"the job was frozen in place on node {part.frozen['in_place']}; its processes are not here",
                "without CRIU a job can be resumed only where it was suspended, and not after a reboot",
            )
    if missing := ranks - {rank for part in manifest.parts for rank in part.ranks}:
        numbers = ", ".join(map(str, sorted(missing)))
        raise restore_failed(
            f"snapshot {manifest.snapshot_id} has no image of rank {numbers}",
            "it was made for ranks that changed their node; the others stayed, and have been lost since",
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
