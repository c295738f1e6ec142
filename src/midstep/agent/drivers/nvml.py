"""How much memory a GPU has free, from NVIDIA's management library: it needs no context on the device."""

from __future__ import annotations

import ctypes
import uuid

from midstep.agent.drivers.errors import DriverError


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def free_bytes(gpus: list[bytes]) -> list[int]:
    """For each GPU (UUIDs of 16 bytes). DriverError: the library cannot be used, or knows no such GPU."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise DriverError(f"NVIDIA's management library cannot be loaded: {error}") from error
    _check(library.nvmlInit_v2(), "nvmlInit")
    try:
        return [_free_bytes(library, gpu) for gpu in gpus]
    finally:
        library.nvmlShutdown()  # else this process would keep the device open


def _free_bytes(library: ctypes.CDLL, gpu: bytes) -> int:
    handle, memory = ctypes.c_void_p(), _Memory()
    name = f"GPU-{uuid.UUID(bytes=gpu)}".encode()
    found = library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle))
    _check(found, f"nvmlDeviceGetHandleByUUID {name.decode()}")
    _check(library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), "nvmlDeviceGetMemoryInfo")
    return int(memory.free)


def _check(code: int, doing: str) -> None:
    if code:
        raise DriverError(f"{doing}: NVML's error {code}")
