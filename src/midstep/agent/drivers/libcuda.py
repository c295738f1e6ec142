"""The process checkpoint of NVIDIA's driver (libcuda, 570 or newer): its few symbols, and what can go wrong.

CudaDriverError
|-- CudaUnavailable  no driver, or one that is too old: the operator's; do not retry
|-- CudaBusy         not locked in time (a long kernel, a stopped rank): nobody's; all run again; retry later
|-- CudaRefused      NVIDIA's driver will not take this rank (managed memory, ...): the job's; all run again
`-- CudaBroken       a rank is in no known state, or cannot be rolled back: kill it, go back to a snapshot
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum

from midstep.agent.drivers.errors import Broken, DriverError, TooSlow


class CudaDriverError(DriverError):
    """Anything that goes wrong here; `codes` has the driver's word for each pid."""

    def __init__(self, message: str, codes: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.codes = dict(codes or {})


class CudaUnavailable(CudaDriverError): ...


class CudaBusy(CudaDriverError, TooSlow): ...


class CudaRefused(CudaDriverError): ...


class CudaBroken(CudaDriverError, Broken): ...


class State(IntEnum):
    RUNNING = 0
    LOCKED = 1
    CHECKPOINTED = 2
    FAILED = 3


class Phase(Enum):
    LOCK = "cuCheckpointProcessLock"
    CHECKPOINT = "cuCheckpointProcessCheckpoint"
    RESTORE = "cuCheckpointProcessRestore"
    UNLOCK = "cuCheckpointProcessUnlock"


GpuPair = tuple[bytes, bytes]  # UUIDs (16 bytes each) of the GPU checkpointed and of the one to restore to
GpuPairs = Mapping[int, Sequence[GpuPair]]  # by pid
NOT_READY = 600
SUCCESS = 0


class _LockArgs(ctypes.Structure):
    _fields_ = [("timeout_ms", ctypes.c_uint), ("reserved", ctypes.c_char * 60)]


class _RestoreArgs(ctypes.Structure):
    _fields_ = [("pairs", ctypes.c_void_p), ("count", ctypes.c_uint), ("reserved", ctypes.c_char * 52)]


class Libcuda:
    """The few symbols used. Every argument block of the interface has 64 bytes; it may be left out (null)."""

    def __init__(self, soname: str = "libcuda.so.1") -> None:
        try:
            self._library = ctypes.CDLL(soname)
            self._library[Phase.LOCK.value]
        except OSError as error:
            raise CudaUnavailable(f"libcuda cannot be loaded: {error}") from error
        except AttributeError as error:
            raise CudaUnavailable(
                "libcuda has no process checkpoint: driver 570 or newer is needed"
            ) from error
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers as nvidia-smi gives them
        if code := int(self._library.cuInit(0)):
            raise CudaUnavailable(f"cuInit: {self.error_name(code)}")

    def call(self, phase: Phase, pid: int, timeout_ms: int = 0, gpu_pairs: Sequence[GpuPair] = ()) -> int:
        arguments: ctypes.Structure | None = None
        flat = b"".join(old + new for old, new in gpu_pairs)
        buffer = ctypes.create_string_buffer(flat, max(1, len(flat)))
        if phase is Phase.LOCK:
            arguments = _LockArgs(timeout_ms=timeout_ms)
        elif phase is Phase.RESTORE and gpu_pairs:
            arguments = _RestoreArgs(pairs=ctypes.addressof(buffer), count=len(gpu_pairs))
        pointer = ctypes.byref(arguments) if arguments is not None else None
        return int(self._library[phase.value](ctypes.c_int(pid), pointer))

    def state(self, pid: int) -> tuple[int, int]:
        value = ctypes.c_int(-1)
        code = int(self._library.cuCheckpointProcessGetState(ctypes.c_int(pid), ctypes.byref(value)))
        return code, value.value

    def gpu_uuids(self) -> tuple[bytes, ...]:
        count = ctypes.c_int()
        self._check(self._library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
        found: list[bytes] = []
        for ordinal in range(count.value):
            uuid = ctypes.create_string_buffer(16)
            self._check(self._library.cuDeviceGetUuid_v2(uuid, ctypes.c_int(ordinal)), "cuDeviceGetUuid")
            found.append(uuid.raw)
        return tuple(found)

    def _check(self, code: int, doing: str) -> None:
        if code:
            raise CudaUnavailable(f"{doing}: {self.error_name(code)}")

    def restore_thread(self, pid: int) -> tuple[int, int]:
        value = ctypes.c_int(-1)
        code = int(
            self._library.cuCheckpointProcessGetRestoreThreadId(ctypes.c_int(pid), ctypes.byref(value))
        )
        return code, value.value

    def error_name(self, code: int | None) -> str:
        if code is None:
            return "NO_ANSWER"
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
        return text.value.decode() if text.value else str(code)
