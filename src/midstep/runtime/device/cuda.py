"""Device memory of an NVIDIA GPU that other processes can map, and a stream of our own.

Memory is made and mapped by the driver's virtual memory calls, and shown by descriptors: handles of CUDA's
IPC carry process numbers, which mean nothing between PID namespaces, and cannot be made anew after a
checkpoint.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from ctypes import byref, c_int, c_size_t, c_uint64
from typing import Any, Dict, Generator, List, Tuple

import torch

from .hands import Door, ask

_PINNED, _BY_FD, _ON_DEVICE, _READ_WRITE, _RECOMMENDED = 1, 1, 1, 3, 1
_OUT_OF_MEMORY = 2
_NONE = c_uint64(0)


class _Location(ctypes.Structure):
    _fields_ = [("type", c_int), ("id", c_int)]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("type", c_int),
        ("handle_types", c_int),
        ("location", _Location),
        ("win32", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    ]


class _Access(ctypes.Structure):
    _fields_ = [("location", _Location), ("flags", c_int)]


class CudaMemory:
    """Memory of one GPU of this process, which has used it before. ``word``: of this rank alone."""

    def __init__(self, device: int, word: str) -> None:
        """Raises OSError without libcuda."""
        self._device = device
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._stream = torch.cuda.Stream(device)
        self._made: Dict[int, c_uint64] = {}  # by number, as others ask for it
        self._maps: Dict[int, Tuple[int, c_uint64, int]] = {}  # by address: bytes, handle, number or -1
        self._count = 0
        self._door = Door(word, self._export)
        self._marks: List[Any] = []
        self._context = ctypes.c_void_p()
        self._check(self._cuda.cuCtxGetCurrent(byref(self._context)), "find the CUDA context")

    def allocate(self, nbytes: int) -> Tuple[Any, int, bytes]:
        with self._bound():
            properties = _Properties(_PINNED, _BY_FD, _Location(_ON_DEVICE, self._device))
            size = self._rounded(nbytes, properties)
            handle = c_uint64()
            code = self._cuda.cuMemCreate(byref(handle), c_size_t(size), byref(properties), _NONE)
            if code == _OUT_OF_MEMORY:
                torch.cuda.empty_cache()  # what torch keeps for itself
                code = self._cuda.cuMemCreate(byref(handle), c_size_t(size), byref(properties), _NONE)
            if code:
                raise MemoryError("%d bytes of device memory: %s" % (size, self._name(code)))
            self._count += 1
            self._made[self._count] = handle
            self._door.open()
            tensor, address = self._map(handle, size, nbytes, self._count)
            return tensor, address, b"%s %d" % (self._door.name.encode(), self._count)

    def free(self, address: int) -> None:
        self._unmap(address)

    def open(self, handle: bytes, nbytes: int) -> Tuple[Any, int]:
        with self._bound():
            name, number = handle.rstrip(b"\0").decode().split()
            fd = ask(name, int(number))
            try:
                made = c_uint64()
                what = "take another rank's device memory"
                self._check(
                    self._cuda.cuMemImportFromShareableHandle(byref(made), ctypes.c_void_p(fd), _BY_FD), what
                )
            finally:
                os.close(fd)
            properties = _Properties(_PINNED, _BY_FD, _Location(_ON_DEVICE, self._device))
            return self._map(made, self._rounded(nbytes, properties), nbytes, -1)

    def close(self, address: int) -> None:
        self._unmap(address)

    def hide(self) -> None:
        self._door.shut()

    def mark(self, tensor: Any) -> Any:
        event = self._marks.pop() if self._marks else torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def passed(self, mark: Any) -> bool:
        return mark.query()

    def after(self, mark: Any) -> None:
        self._stream.wait_event(mark)

    def done_with(self, mark: Any) -> None:
        self._marks.append(mark)

    @contextmanager
    def _bound(self) -> Generator[None, None, None]:
        """The driver's calls are for the context of the thread, and a new thread has none."""
        self._check(self._cuda.cuCtxSetCurrent(self._context), "use the CUDA context")
        with torch.cuda.device(self._device):
            yield

    @contextmanager
    def queue(self) -> Generator[None, None, None]:
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def finish(self) -> None:
        self._stream.synchronize()

    def until(self, mark: Any) -> None:
        mark.synchronize()

    def follow(self) -> Any:
        event = self._marks.pop() if self._marks else torch.cuda.Event()
        event.record(self._stream)
        torch.cuda.current_stream(self._device).wait_event(event)
        return event

    def _rounded(self, nbytes: int, properties: _Properties) -> int:
        unit = c_size_t()
        call = self._cuda.cuMemGetAllocationGranularity
        self._check(call(byref(unit), byref(properties), _RECOMMENDED), "ask for the granularity")
        return -(-nbytes // unit.value) * unit.value

    def _map(self, handle: c_uint64, size: int, nbytes: int, number: int) -> Tuple[Any, int]:
        cuda, pointer, length = self._cuda, c_uint64(), c_size_t(size)
        what = "map %d bytes of device memory" % size
        self._check(cuda.cuMemAddressReserve(byref(pointer), length, c_size_t(0), _NONE, _NONE), what)
        self._check(cuda.cuMemMap(pointer, length, c_size_t(0), handle, _NONE), what)
        access = _Access(_Location(_ON_DEVICE, self._device), _READ_WRITE)
        self._check(cuda.cuMemSetAccess(pointer, length, byref(access), c_size_t(1)), what)
        self._maps[pointer.value] = (size, handle, number)
        view = _Bytes(pointer.value, nbytes)
        return torch.as_tensor(view, device="cuda:%d" % self._device), pointer.value

    def _unmap(self, address: int) -> None:
        size, handle, number = self._maps.pop(address)
        self._made.pop(number, None)
        pointer, length = c_uint64(address), c_size_t(size)
        with self._bound():
            what = "unmap device memory"
            self._check(self._cuda.cuMemUnmap(pointer, length), what)
            self._check(self._cuda.cuMemRelease(handle), what)
            self._check(self._cuda.cuMemAddressFree(pointer, length), what)

    def _export(self, number: int) -> int:
        fd = c_int(-1)
        with self._bound():
            call = self._cuda.cuMemExportToShareableHandle
            self._check(call(byref(fd), self._made[number], _BY_FD, _NONE), "show device memory")
        return fd.value

    def _check(self, code: int, what: str) -> None:
        if code:
            raise RuntimeError("cannot %s: %s" % (what, self._name(code)))

    def _name(self, code: int) -> str:
        name = ctypes.c_char_p()
        self._cuda.cuGetErrorName(code, byref(name))
        return (name.value or b"CUDA error %d" % code).decode()


class _Bytes:
    """Device memory as torch takes it from other libraries, without a copy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 2,
        }
