"""The ranks' device state, on nodes with NVIDIA GPUs: to the host before the freeze, back after the thaw.

The driver works on processes that run: so a cut locks all CUDA processes in one pass (their next CUDA call
waits), moves their device memory to the host and only then stops them; a resume lets them run, still locked,
and fills the devices. CRIU sees processes without a device. Which processes these are is in the record before
the first of them is touched, so another agent can finish or undo what this one began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from midstep.agent.config import AgentConfig
from midstep.agent.drivers import cuda, nvml
from midstep.agent.drivers.errors import Blame, DriverError, Kind, Refusal, Refused
from midstep.agent.drivers.launch import RankProcess, alive, inner_pid, processes
from midstep.agent.gpus import gpus_of
from midstep.agent.journal import CudaRank
from midstep.agent.steps.base import Job, blocking, step
from midstep.model.job import RankPlace
from midstep.proxy.parting import call_back, part

_LOCK_MS = 20_000


async def leave_devices(job: Job) -> int:
    """Lock and checkpoint all CUDA processes of the ranks here; answers the bytes moved. StepFailed: all run
    again, unless it says otherwise. Nothing happens without GPUs, and to ranks that stand still already."""
    if not cuda.machine_has_gpus() or job.entry.frozen:
        return 0
    found = await blocking(partial(_find, job))
    if not found:
        return 0
    pids = list(found)
    async with step(job, "gpu", "cuda-part", intact=True) as current:
        await blocking(partial(part, pids, current.limit_s * 0.9))
    async with step(job, "gpu", "cuda-lock", intact=True):
        job.save(cuda=await blocking(partial(_recorded, job, found)))
        await _ask(job, lambda: job.means.cuda.lock(pids, _LOCK_MS))
    async with step(job, "gpu", "cuda-checkpoint", intact=True) as current:
        report = await _ask(job, lambda: job.means.cuda.checkpoint(pids))
        current.nbytes = report.moved_bytes
    sizes = dict.fromkeys(job.entry.cuda, 0)
    for moved in report.ranks:
        sizes[found[moved.pid]] += moved.moved_bytes
    job.save(cuda={rank: replace(left, nbytes=sizes[rank]) for rank, left in job.entry.cuda.items()})
    return report.moved_bytes


async def refuse_full_devices(job: Job) -> None:
    """Before a restore: a GPU too full for its ranks would only say so when they run again. DriverError."""
    if any(left.nbytes for left in job.entry.cuda.values()):
        await blocking(partial(_refuse_full_devices, job))


async def enter_devices(job: Job) -> None:
    """Fill the devices of running ranks that have been checkpointed, and unlock them; harmless when there are
    none. StepFailed, not intact: a rank is lost, the job has to go back to its snapshot."""
    if not job.entry.cuda:
        await _share_again(job)
        return
    states = await blocking(partial(_states, job))
    checkpointed = [pid for pid, state in states.items() if state is cuda.State.CHECKPOINTED]
    locked = [pid for pid, state in states.items() if state is cuda.State.LOCKED]
    async with step(job, "gpu", "cuda-restore", intact=False) as current:
        pairs = await blocking(partial(_pairs, job))
        report = await _ask(job, lambda: job.means.cuda.restore(checkpointed, pairs))
        current.nbytes = report.moved_bytes
    async with step(job, "gpu", "cuda-unlock", intact=False):
        await _ask(job, lambda: job.means.cuda.unlock([*checkpointed, *locked]))
    job.save(cuda={})
    await _share_again(job)


async def roll_back_devices(job: Job) -> None:
    """After a dump that failed: ranks that run use their devices again, from wherever they stand. CudaBroken:
    one cannot."""
    if not job.entry.cuda:
        await _share_again(job)
        return
    pids = list(await blocking(partial(_pids, job)))
    await blocking(partial(job.means.cuda.rollback, pids))
    job.save(cuda={})
    await _share_again(job)


async def _share_again(job: Job) -> None:
    """Ranks that go on under the same epoch share their GPU as before; those of a new one meet elsewhere."""
    if cuda.machine_has_gpus():
        pids = [p.init_pid for p in job.entry.processes.values() if alive(p)]
        await blocking(partial(call_back, pids, lambda epoch: epoch == job.entry.epoch))


def _refuse_full_devices(job: Job) -> None:
    uuids = job.means.cuda.gpu_uuids()
    needed: dict[str, int] = {}
    for rank, left in job.entry.cuda.items():
        gpus = _gpus(job, rank, uuids)
        if len(gpus) == 1:  # with several it is not known which of them it used
            needed[gpus[0]] = needed.get(gpus[0], 0) + left.nbytes
    free = nvml.free_bytes([bytes.fromhex(gpu) for gpu in needed])
    for (gpu, wanted), there in zip(needed.items(), free, strict=True):
        if there < wanted:
            number = next(n for n, uuid in enumerate(uuids) if uuid.hex() == gpu)
            room = f"GPU {number} has {there / 1e9:.1f} GB of memory free"
            raise DriverError(f"{room}, and the job's ranks here need {wanted / 1e9:.1f} GB")


def _find(job: Job) -> dict[int, int]:
    """Pid here -> rank, of the processes that use CUDA."""
    ranks = [p for p in job.entry.processes.values() if alive(p)]
    holders = {pid: p.rank for p in ranks for pid in processes(p) if cuda.holds_devices(pid)}
    users = job.means.cuda.find_cuda_pids(list(holders)) if holders else ()
    return {pid: holders[pid] for pid in users}


def _recorded(job: Job, found: dict[int, int]) -> dict[int, CudaRank]:
    uuids = job.means.cuda.gpu_uuids()
    return {
        rank: CudaRank(
            tuple(sorted(inner_pid(pid) for pid, owner in found.items() if owner == rank)),
            _gpus(job, rank, uuids),
        )
        for rank in sorted(set(found.values()))
    }


def _pids(job: Job) -> dict[int, int]:
    """Pid here -> rank, of the recorded ones that are there: a restore gives them other numbers."""
    found: dict[int, int] = {}
    for rank, recorded in job.entry.cuda.items():
        process: RankProcess | None = job.entry.processes.get(rank)
        for pid in processes(process) if process is not None else ():
            if inner_pid(pid) in recorded.pids:
                found[pid] = rank
    return found


def _states(job: Job) -> dict[int, cuda.State | None]:
    return {pid: job.means.cuda.state(pid) for pid in _pids(job)}


def _pairs(job: Job) -> cuda.GpuPairs:
    """For ranks that were started with other GPUs than those that they have now: from which to which."""
    uuids = job.means.cuda.gpu_uuids()
    pairs: dict[int, Sequence[cuda.GpuPair]] = {}
    for pid, rank in _pids(job).items():
        then, now = job.entry.cuda[rank].gpus, _gpus(job, rank, uuids)
        if then and now and then != now:
            both = zip(then, now, strict=False)
            pairs[pid] = [(bytes.fromhex(a), bytes.fromhex(b)) for a, b in both]
    return pairs


def _gpus(job: Job, rank: int, uuids: Sequence[bytes]) -> tuple[str, ...]:
    places: dict[int, RankPlace] = {r.rank: r for r in job.entry.place.ranks}
    config: AgentConfig = job.means.config
    numbers = gpus_of(config, places[rank], job.entry.place.ranks)
    return tuple(uuids[n].hex() for n in numbers if n < len(uuids))


async def _ask(job: Job, call: Callable[[], cuda.PhaseReport]) -> cuda.PhaseReport:
    """A driver call beside the event loop; what NVIDIA's driver says, in words."""
    try:
        return await blocking(call)
    except cuda.CudaRefused as error:
        raise Refused(_refusal(error)) from error
    except cuda.CudaBroken as error:
        if "CUDA_ERROR_OUT_OF_MEMORY" in error.codes.values():
            message = f"the GPU has too little free memory for the job's own ({error})"
            raise cuda.CudaBroken(message, error.codes) from error
        raise


def _refusal(error: cuda.CudaRefused) -> Refusal:
    codes = set(error.codes.values())
    if "CUDA_ERROR_NOT_SUPPORTED" in codes:
        why = "it holds something on the GPU that cannot be moved (managed memory, for one); let go of it"
    else:
        why = "NVIDIA's driver would not take it; a later try may pass"
    return Refusal(Kind.DEVICE, Blame.JOB, f"a process cannot leave its GPU: {why}", str(error))
