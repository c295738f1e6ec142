"""What a process leaves open on an NVIDIA GPU without using it, and what could not be moved with it.

Two things would keep a job from being moved although none of its processes needs them: what a forked child of
a process that uses CUDA inherits (DataLoader workers; CUDA cannot be used in such a child), and NVML, which
torch opens to count the devices and never closes. Standard library only; loaded before torch.
"""

from __future__ import annotations

import functools
import mmap
import os
from types import ModuleType
from typing import Any, List, Tuple

CONTROL = "/dev/nvidiactl"
_PREFIX = "/dev/nvidia"
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000


def install() -> None:
    """Have every forked child let go of the GPU. Costs a child a look at one name where there is no GPU."""
    os.register_at_fork(after_in_child=let_go)


def let_go() -> None:
    """Put the null device in place of device files that are open, and empty memory in place of those mapped.

    So whatever of the CUDA library runs in the child, at its exit for one, finds nothing of the GPU.
    """
    if not os.path.exists(CONTROL):
        return
    try:
        for number in _open_devices():
            _replace(number)
        for start, nbytes in _mapped_devices():
            _blank(start, nbytes)
    except Exception:
        return  # the child is as torch alone would have it; a cut will name the device


def _open_devices() -> List[int]:
    found: List[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith(_PREFIX):
                found.append(int(name))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _mapped_devices() -> List[Tuple[int, int]]:
    found: List[Tuple[int, int]] = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            words = line.split(None, 5)
            if len(words) == 6 and words[5].startswith(_PREFIX):
                start, end = (int(word, 16) for word in words[0].split("-"))
                found.append((start, end - start))
    return found


def _replace(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, number, inheritable=False)
    finally:
        os.close(null)


def _blank(start: int, nbytes: int) -> None:
    import ctypes

    call = ctypes.CDLL(None).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
    call(start, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)


def close_nvml(torch_cuda: ModuleType) -> None:
    """Have torch close NVML when it has counted the devices with it."""
    for name in ("_raw_device_count_nvml", "_raw_device_uuid_nvml"):
        original = getattr(torch_cuda, name, None)
        if callable(original):
            setattr(torch_cuda, name, _closing(original))


def _closing(original: Any) -> Any:
    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            _shut_nvml()

    return counted


def _shut_nvml() -> None:
    """NVML counts who has opened it: where somebody else has as well, it stays open."""
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1").nvmlShutdown()
    except (OSError, AttributeError):
        pass
