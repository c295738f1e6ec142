"""The device driver for NVIDIA GPUs: moves the device state of ranks into their host memory, and back.

It calls the checkpoint interface of libcuda (570 or newer) on other processes, by pid as the agent sees it:

    lock -> checkpoint -> (CRIU dumps, kills, restores; by others) -> restore -> unlock

Each phase takes all ranks of a node in one pass. When lock or checkpoint fails for one, all are rolled back
to running. libcuda is loaded at the first need: a machine without a GPU imports this, and `available()` says
why it is of no use there. What NVIDIA's driver was seen to do: docs/internals/gpu.md.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from midstep.agent.drivers.cuda_processes import (
    holds_devices,
    is_stopped,
    kernel_driver_version,
    machine_has_gpus,
    resident_bytes,
)
from midstep.agent.drivers.libcuda import (
    NOT_READY,
    SUCCESS,
    CudaBroken,
    CudaBusy,
    CudaDriverError,
    CudaRefused,
    CudaUnavailable,
    GpuPair,
    GpuPairs,
    Libcuda,
    Phase,
    State,
)

_ANSWER_S = 15.0  # what a lock may take beyond its own timeout


@dataclass(frozen=True, slots=True)
class CudaSupport:
    ok: bool
    driver_version: str  # of the kernel module, "580.159.04"; empty without one
    reason: str  # why not; empty when ok


@dataclass(frozen=True, slots=True)
class RankPhase:
    pid: int
    code: int | None  # None: the call had not returned at the deadline
    duration_s: float
    moved_bytes: int  # growth (checkpoint) or shrinkage (restore) of the rank's resident memory


@dataclass(frozen=True, slots=True)
class PhaseReport:
    phase: Phase
    duration_s: float
    ranks: tuple[RankPhase, ...]

    @property
    def moved_bytes(self) -> int:
        return sum(rank.moved_bytes for rank in self.ranks)


class CudaDriver:
    """One for an agent; may be used for several jobs at once. `clock` is monotonic, in seconds."""

    def __init__(self, deadline_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline_s = deadline_s
        self._clock = clock
        self._loaded: Libcuda | None = None
        self._loading = threading.Lock()

    def available(self) -> CudaSupport:
        version = kernel_driver_version()
        try:
            self.libcuda()
        except CudaUnavailable as error:
            return CudaSupport(False, version, str(error))
        return CudaSupport(True, version, "")

    def gpu_uuids(self) -> tuple[bytes, ...]:
        """The UUIDs (16 bytes each) of this machine's GPUs, by their numbers on the bus."""
        return self.libcuda().gpu_uuids()

    def find_cuda_pids(self, pids: Sequence[int]) -> tuple[int, ...]:
        """Those of `pids` that have initialised CUDA, in the order given."""
        return tuple(pid for pid in pids if self.state(pid) is not None)

    def state(self, pid: int) -> State | None:
        """None for a process that does not use CUDA, or does not exist."""
        code, state = self.libcuda().state(pid)
        return State(state) if code == SUCCESS else None

    def lock(self, pids: Sequence[int], timeout_ms: int) -> PhaseReport:
        """Let submitted work finish and hold every further CUDA call; on a timeout nothing has changed.

        Ranks must be able to run: for a stopped one the call would wait past its own timeout.
        """
        if stopped := [pid for pid in pids if is_stopped(pid)]:
            raise CudaBusy(f"stopped: {stopped}", dict.fromkeys(stopped, "STOPPED"))
        slow_s = min(self._deadline_s, timeout_ms / 1000 + _ANSWER_S)
        report = self.run_phase(Phase.LOCK, pids, timeout_ms=timeout_ms, deadline_s=slow_s)
        self._settle(report, pids)
        return report

    def checkpoint(self, pids: Sequence[int]) -> PhaseReport:
        """Move device memory to host memory and release the device.

        A rank that maps device memory of another (CUDA IPC, imported handles) is lost by this, silently: with
        driver 580 the checkpoint succeeds and the restore fails. It must have made its own copy before.
        """
        report = self.run_phase(Phase.CHECKPOINT, pids)
        self._settle(report, pids)
        return report

    def restore(self, pids: Sequence[int], gpu_pairs: GpuPairs | None = None) -> PhaseReport:
        """Take a device again and fill it. A pid's pairs must name every GPU that was in use (driver 580)."""
        report = self.run_phase(Phase.RESTORE, pids, gpu_pairs=gpu_pairs)
        self._require(report)
        return report

    def unlock(self, pids: Sequence[int]) -> PhaseReport:
        report = self.run_phase(Phase.UNLOCK, pids)
        self._require(report)
        return report

    def rollback(self, pids: Sequence[int]) -> None:
        """Every rank runs again, from whichever phase it is in; `CudaBroken` names those that cannot.

        One that has ended meanwhile is no news here.
        """
        broken: dict[int, str] = {}
        for pid in pids:
            state = self.state(pid)
            if state is State.CHECKPOINTED:
                self.run_phase(Phase.RESTORE, [pid])
            if state in (State.CHECKPOINTED, State.LOCKED):
                self.run_phase(Phase.UNLOCK, [pid])
            after = self.state(pid)
            if after is not State.RUNNING and os.path.exists(f"/proc/{pid}"):
                broken[pid] = after.name if after is not None else "NO_STATE"
        if broken:
            raise CudaBroken(f"cannot be rolled back: {broken}", broken)

    def _settle(self, report: PhaseReport, pids: Sequence[int]) -> None:
        """Nothing when all ranks succeeded; else roll back all and say whose fault it was."""
        codes = self._failures(report)
        if not codes:
            return
        if any(rank.code is None for rank in report.ranks):
            late = f"{report.phase.value} did not return in {report.duration_s:.0f} s: {codes}"
            raise CudaBroken(late, codes)
        self.rollback(pids)
        busy = all(rank.code in (SUCCESS, NOT_READY) for rank in report.ranks)
        raise (CudaBusy if busy else CudaRefused)(
            f"{report.phase.value}: {codes}; all ranks run again", codes
        )

    def _require(self, report: PhaseReport) -> None:
        if codes := self._failures(report):
            raise CudaBroken(f"{report.phase.value}: {codes}", codes)

    def _failures(self, report: PhaseReport) -> dict[int, str]:
        name = self.libcuda().error_name
        return {rank.pid: name(rank.code) for rank in report.ranks if rank.code != SUCCESS}

    def run_phase(
        self,
        phase: Phase,
        pids: Sequence[int],
        timeout_ms: int = 0,
        gpu_pairs: GpuPairs | None = None,
        deadline_s: float | None = None,
    ) -> PhaseReport:
        """A phase, without judging it: one thread a rank, since a call lasts and ctypes lets others run."""
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        libcuda = self.libcuda()
        done: dict[int, RankPhase] = {}
        started_s = self._clock()

        def one(pid: int) -> None:
            before_bytes, begun_s = resident_bytes(pid), self._clock()
            code = libcuda.call(phase, pid, timeout_ms, (gpu_pairs or {}).get(pid, ()))
            took_s = self._clock() - begun_s
            done[pid] = RankPhase(pid, code, took_s, abs(resident_bytes(pid) - before_bytes))

        threads = [threading.Thread(target=one, args=(pid,), daemon=True) for pid in pids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, started_s + limit_s - self._clock()))
        took_s = self._clock() - started_s
        ranks = tuple(done.get(pid, RankPhase(pid, None, took_s, 0)) for pid in pids)
        return PhaseReport(phase, took_s, ranks)

    def libcuda(self) -> Libcuda:
        with self._loading:
            if self._loaded is None:
                self._loaded = Libcuda()
            return self._loaded


__all__ = [
    "CudaBroken",
    "CudaBusy",
    "CudaDriver",
    "CudaDriverError",
    "CudaRefused",
    "CudaSupport",
    "CudaUnavailable",
    "GpuPair",
    "GpuPairs",
    "Libcuda",
    "Phase",
    "PhaseReport",
    "RankPhase",
    "State",
    "holds_devices",
    "is_stopped",
    "machine_has_gpus",
]
