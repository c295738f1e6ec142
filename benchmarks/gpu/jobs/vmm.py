"""The virtual memory calls of libcuda that the experiments need: shareable memory, and its mapping."""

import ctypes
import os

import torch

lib = ctypes.CDLL("libcuda.so.1")
POSIX_FD = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class Properties(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("handle_types", ctypes.c_int), ("location", Location)]
    _fields_ += [("win32", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8)]


class Access(ctypes.Structure):
    _fields_ = [("location", Location), ("flags", ctypes.c_int)]


def check(code, what):
    if code:
        text = ctypes.c_char_p()
        lib.cuGetErrorName(code, ctypes.byref(text))
        raise RuntimeError(f"{what}: {(text.value or b'').decode()} {code}")


def create(size, shareable=True):
    properties = Properties(1, POSIX_FD if shareable else 0, Location(1, 0))
    handle = ctypes.c_ulonglong()
    check(
        lib.cuMemCreate(
            ctypes.byref(handle), ctypes.c_size_t(size), ctypes.byref(properties), ctypes.c_ulonglong(0)
        ),
        "create",
    )
    return handle


def export(handle):
    fd = ctypes.c_int(-1)
    check(
        lib.cuMemExportToShareableHandle(ctypes.byref(fd), handle, POSIX_FD, ctypes.c_ulonglong(0)), "export"
    )
    return fd.value


def import_(fd):
    handle = ctypes.c_ulonglong()
    check(lib.cuMemImportFromShareableHandle(ctypes.byref(handle), ctypes.c_void_p(fd), POSIX_FD), "import")
    return handle


def reserve(size):
    pointer = ctypes.c_ulonglong()
    zero = ctypes.c_ulonglong(0)
    check(
        lib.cuMemAddressReserve(ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_size_t(0), zero, zero),
        "reserve",
    )
    return pointer.value


def map_(pointer, size, handle):
    address, length = ctypes.c_ulonglong(pointer), ctypes.c_size_t(size)
    check(lib.cuMemMap(address, length, ctypes.c_size_t(0), handle, ctypes.c_ulonglong(0)), "map")
    access = Access(Location(1, 0), 3)
    check(lib.cuMemSetAccess(address, length, ctypes.byref(access), ctypes.c_size_t(1)), "access")


def unmap(pointer, size):
    check(lib.cuMemUnmap(ctypes.c_ulonglong(pointer), ctypes.c_size_t(size)), "unmap")


def release(handle):
    check(lib.cuMemRelease(handle), "release")


class _View:
    def __init__(self, pointer, count):
        self.__cuda_array_interface__ = {
            "shape": (count,),
            "typestr": "<f4",
            "data": (pointer, False),
            "version": 3,
        }


def tensor(pointer, size):
    return torch.as_tensor(_View(pointer, size // 4), device="cuda")


def fetch_fd(pid, fd):
    """A descriptor of another process, as one of ours (pidfd_open, pidfd_getfd)."""
    pidfd = LIBC.syscall(434, pid, 0)
    ours = LIBC.syscall(438, pidfd, fd, 0)
    os.close(pidfd)
    if ours < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return ours
