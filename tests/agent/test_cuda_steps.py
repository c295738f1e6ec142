"""What the agent asks of the device driver, and when, with a driver that keeps its contract in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from midstep.agent.config import AgentConfig
from midstep.agent.drivers import cuda
from midstep.agent.drivers.cuda import CudaBroken, CudaBusy, CudaRefused, Phase, PhaseReport, RankPhase, State
from midstep.agent.drivers.errors import DriverError
from midstep.agent.drivers.launch import RankProcess
from midstep.agent.errors import StepFailed
from midstep.agent.gpus import gpu_environment
from midstep.agent.journal import CudaRank, JobEntry, Journal
from midstep.agent.steps import cuda as steps
from midstep.agent.steps.base import Job, Means
from midstep.model import phase
from midstep.model.fleet import Device
from midstep.model.job import JobSpec, NodePlace, RankPlace
from midstep.model.phase import Fault
from midstep.proxy.parting import StillTogether

TREE = {100: [100, 101, 102], 200: [200, 201]}  # 102 is a worker: it has no device
USERS = {101: 0, 201: 1}
PARTED: list[tuple[object, ...]] = []  # what was asked of ranks that share a GPU
UUIDS = (b"A" * 16, b"B" * 16)


class MemoryDriver(cuda.CudaDriver):
    """States as NVIDIA's driver has them; `fails` names a phase that is refused, and with which error."""

    def __init__(self) -> None:
        super().__init__()
        self.states = dict.fromkeys(USERS, State.RUNNING)
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.pairs: Mapping[int, Sequence[cuda.GpuPair]] = {}
        self.fails: dict[str, Exception] = {}

    def gpu_uuids(self) -> tuple[bytes, ...]:
        return UUIDS

    def state(self, pid: int) -> State | None:
        return self.states.get(pid)

    def lock(self, pids: Sequence[int], timeout_ms: int) -> PhaseReport:
        return self._go(Phase.LOCK, pids, State.RUNNING, State.LOCKED)

    def checkpoint(self, pids: Sequence[int]) -> PhaseReport:
        return self._go(Phase.CHECKPOINT, pids, State.LOCKED, State.CHECKPOINTED)

    def restore(self, pids: Sequence[int], gpu_pairs: cuda.GpuPairs | None = None) -> PhaseReport:
        self.pairs = gpu_pairs or {}
        return self._go(Phase.RESTORE, pids, State.CHECKPOINTED, State.LOCKED)

    def unlock(self, pids: Sequence[int]) -> PhaseReport:
        return self._go(Phase.UNLOCK, pids, State.LOCKED, State.RUNNING)

    def rollback(self, pids: Sequence[int]) -> None:
        self.states.update(dict.fromkeys(pids, State.RUNNING))

    def _go(self, which: Phase, pids: Sequence[int], before: State, after: State) -> PhaseReport:
        name = which.name.lower()
        self.calls.append((name, tuple(pids)))
        if name in self.fails:
            raise self.fails[name]
        assert all(self.states[pid] is before for pid in pids)
        self.states.update(dict.fromkeys(pids, after))
        return PhaseReport(which, 0.1, tuple(RankPhase(pid, 0, 0.1, 1000) for pid in pids))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "machine_has_gpus", lambda: True)
    monkeypatch.setattr(cuda, "holds_devices", lambda pid: pid in USERS)
    monkeypatch.setattr(steps, "alive", lambda p: True)
    monkeypatch.setattr(steps, "processes", lambda p: TREE[p.init_pid])
    monkeypatch.setattr(steps, "inner_pid", lambda pid: pid % 100)
    monkeypatch.setattr(steps, "part", lambda pids, limit_s: PARTED.append(("part", tuple(pids))))
    monkeypatch.setattr(steps, "call_back", lambda pids, still: PARTED.append(("back", still(1), still(0))))
    PARTED.clear()


def job(tmp_path: Path, numbers: tuple[int, int] = (0, 0), **more: Any) -> Job:
    driver = MemoryDriver()
    kind = "nvidia-h100-80gb-hbm3"
    gpus, here = (Device(0, kind), Device(1, kind)), tmp_path
    config = AgentConfig("a", "r", "127.0.0.1", gpus, "http://x", "t", here, here, here)
    means = Means(config, Journal(tmp_path), None, None, None, None, None, cuda=driver)  # type: ignore[arg-type]
    place = NodePlace("a", 0, tuple(RankPlace(r, 0, r, 2, (numbers[r],)) for r in range(2)))
    processes = {0: RankProcess(0, 100, 1), 1: RankProcess(1, 200, 1)}
    entry = JobEntry("j", 1, phase.Phase.RUNNING, JobSpec(("x",)), place, processes=processes, **more)
    made = Job(means, entry)
    made.save()
    return made


def driver_of(j: Job) -> MemoryDriver:
    assert isinstance(j.means.cuda, MemoryDriver)
    return j.means.cuda


async def test_all_cuda_processes_leave_in_one_pass_and_come_back(machine: None, tmp_path: Path) -> None:
    j = job(tmp_path)
    assert await steps.leave_devices(j) == 2000
    gpu = (UUIDS[0].hex(),)
    assert j.means.journal.load()[0].cuda == {r: CudaRank((1,), gpu, 1000) for r in range(2)}
    await steps.enter_devices(j)
    both = (101, 201)
    assert driver_of(j).calls == [("lock", both), ("checkpoint", both), ("restore", both), ("unlock", both)]
    steps_made = ["cuda-part", "cuda-lock", "cuda-checkpoint", "cuda-restore", "cuda-unlock"]
    assert [s.step for s in j.steps] == steps_made
    assert [("part", both), ("back", True, False)] == PARTED  # under this epoch, 1, they may share again
    assert not j.entry.cuda and not driver_of(j).pairs


async def test_ranks_that_do_not_let_go_of_shared_memory_are_not_touched(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still(pids: Sequence[int], limit_s: float) -> int:
        raise StillTogether("2 ranks did not let go of the GPU memory that they share in 18 s")

    monkeypatch.setattr(steps, "part", still)
    j = job(tmp_path)
    with pytest.raises(StepFailed, match="2 ranks did not let go") as raised:
        await steps.leave_devices(j)
    assert raised.value.failure.intact and raised.value.failure.step == "cuda-part"
    assert not driver_of(j).calls and not j.entry.cuda
    await steps.roll_back_devices(j)
    assert PARTED == [("back", True, False)]


async def test_ranks_that_stand_still_are_left_alone(machine: None, tmp_path: Path) -> None:
    j = job(tmp_path, frozen={"stopped_before": {}, "duration_s": 0.0}, cuda={0: CudaRank((1,))})
    assert await steps.leave_devices(j) == 0
    assert not driver_of(j).calls and j.entry.cuda


@pytest.mark.parametrize(
    ("where", "error", "fault", "intact"),
    [
        ("lock", CudaBusy("late", {101: "CUDA_ERROR_NOT_READY"}), Fault.TRANSIENT, True),
        ("checkpoint", CudaRefused("no", {101: "CUDA_ERROR_NOT_SUPPORTED"}), Fault.JOB_STATE, True),
        ("checkpoint", CudaBroken("lost", {101: "NO_ANSWER"}), Fault.NODE, False),
    ],
)
async def test_whose_fault_it_is(
    machine: None, tmp_path: Path, where: str, error: Exception, fault: Fault, intact: bool
) -> None:
    j = job(tmp_path)
    driver_of(j).fails[where] = error
    with pytest.raises(StepFailed) as caught:
        await steps.leave_devices(j)
    assert (caught.value.failure.fault, caught.value.failure.intact) == (fault, intact)
    assert caught.value.failure.step == f"cuda-{where}" and j.entry.cuda  # until it has been rolled back
    await steps.roll_back_devices(j)
    assert not j.entry.cuda and set(driver_of(j).states.values()) == {State.RUNNING}


async def test_a_restore_that_was_interrupted_is_gone_through_with(machine: None, tmp_path: Path) -> None:
    j = job(tmp_path, cuda={0: CudaRank((1,)), 1: CudaRank((1,))})
    driver_of(j).states = {101: State.LOCKED, 201: State.CHECKPOINTED}
    await steps.enter_devices(j)
    assert driver_of(j).calls == [("restore", (201,)), ("unlock", (201, 101))]


async def test_another_gpu_is_named_to_the_driver(machine: None, tmp_path: Path) -> None:
    before = {r: CudaRank((1,), (UUIDS[0].hex(),)) for r in range(2)}
    j = job(tmp_path, numbers=(1, 1), cuda=before)
    driver_of(j).states = dict.fromkeys(USERS, State.CHECKPOINTED)
    await steps.enter_devices(j)
    assert driver_of(j).pairs == {pid: [(UUIDS[0], UUIDS[1])] for pid in USERS}


async def test_too_little_memory_on_the_gpu_is_said(machine: None, tmp_path: Path) -> None:
    j = job(tmp_path, cuda={0: CudaRank((1,))})
    driver_of(j).states[101] = State.CHECKPOINTED
    driver_of(j).fails["restore"] = CudaBroken("x", {101: "CUDA_ERROR_OUT_OF_MEMORY"})
    with pytest.raises(StepFailed, match="too little free memory") as caught:
        await steps.enter_devices(j)
    assert not caught.value.failure.intact


@pytest.mark.parametrize(("numbers", "visible"), [((1, 0), ["1,0", "1,0"]), ((1, 1), ["1", "1"])])
def test_which_gpus_a_rank_sees(tmp_path: Path, numbers: tuple[int, int], visible: list[str]) -> None:
    j = job(tmp_path, numbers)
    ranks = j.entry.place.ranks
    found = [gpu_environment(j.means.config, rank, ranks)["CUDA_VISIBLE_DEVICES"] for rank in ranks]
    assert found == visible


@pytest.mark.parametrize(("free", "fits"), [(2000, True), (1999, False)])
async def test_a_gpu_that_is_too_full_is_refused_before_the_restore(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(steps.nvml, "free_bytes", lambda gpus: [free] * len(gpus))
    j = job(tmp_path, cuda={r: CudaRank((1,), (), 1000) for r in range(2)})
    if fits:
        await steps.refuse_full_devices(j)
        return
    with pytest.raises(DriverError, match=r"GPU 0 has .* GB of memory free"):
        await steps.refuse_full_devices(j)
