"""Mapping over memory that is in use, and seeing which of its pages were written. Linux, through ctypes.

Nothing here changes what a reader of the memory sees: mappings are exchanged for others of equal content.
"""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import tempfile
from typing import Iterable, List, Optional, Tuple

PAGE = mmap.PAGESIZE

_LIBC = ctypes.CDLL(None, use_errno=True)
_mmap = _LIBC.mmap64 if hasattr(_LIBC, "mmap64") else _LIBC.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_mremap = _LIBC["mremap"]
_mremap.restype = ctypes.c_void_p
_mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_munmap = _LIBC["munmap"]
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise = _LIBC["madvise"]
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
memcmp = _LIBC["memcmp"]
memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ioctl = _LIBC["ioctl"]
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_FIXED = 0x10
_ANONYMOUS = 0x20
_MREMAP_MOVE_FIXED = 1 | 2
_DONTFORK, _POPULATE_READ, _POPULATE_WRITE = 10, 22, 23


def map_shared(fd: int, nbytes: int) -> int:
    """Map a whole file, writable by all; not inherited by forked children. Raises OSError."""
    address = _checked(_mmap(None, nbytes, _READ_WRITE, mmap.MAP_SHARED, fd, 0), "map %d bytes" % nbytes)
    _madvise(address, nbytes, _DONTFORK)
    return address


def view(address: int, nbytes: int) -> memoryview:
    """Mapped memory, as bytes."""
    return memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")


def unmap(address: int, nbytes: int) -> None:
    """Undo ``map_shared``."""
    _munmap(address, nbytes)


def map_over(address: int, nbytes: int, fd: int, offset: int) -> None:
    """Put the file's pages, copied when written, in the place of memory of equal content. Raises OSError."""
    flags = mmap.MAP_PRIVATE | _FIXED
    _checked(_mmap(address, nbytes, _READ_WRITE, flags, fd, offset), "map over memory")
    _madvise(address, nbytes, _POPULATE_READ)  # a fault for every page otherwise


def make_own(address: int, nbytes: int) -> None:
    """Put memory of this process alone in the place of what is mapped there, with its content; whoever
    touches it meanwhile waits. Raises OSError.
    """
    flags = mmap.MAP_PRIVATE | _ANONYMOUS
    fresh = _checked(_mmap(None, nbytes, _READ_WRITE, flags, -1, 0), "get %d bytes" % nbytes)
    ctypes.memmove(fresh, address, nbytes)
    moved = _mremap(fresh, nbytes, nbytes, _MREMAP_MOVE_FIXED, address)
    if moved != address:
        number = ctypes.get_errno()
        _munmap(fresh, nbytes)
        raise OSError(number, "memory could not be made private")


def copy_pages(address: int, nbytes: int) -> None:
    """Copy all pages as if each had been written, its content unchanged."""
    if _madvise(address, nbytes, _POPULATE_WRITE) == 0:
        return
    for page in range(address, address + nbytes, PAGE):  # before Linux 5.14
        byte = ctypes.c_ubyte.from_address(page)
        byte.value = byte.value


def equal(left: int, right: int, nbytes: int) -> bool:
    """Whether two stretches of memory hold the same bytes."""
    return memcmp(left, right, nbytes) == 0


def fresh_memory(nbytes: int) -> mmap.mmap:
    """New memory of this process, at a page's start."""
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def private_areas(folder: str) -> List[Tuple[int, int]]:
    """Where this process has plain memory of its own, or a private mapping of a file below ``folder``:
    (start, end), in order, neighbours joined.
    """
    found: List[Tuple[int, int]] = []
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, rights, _, _, inode, *path = line.split(None, 5)
            plain = inode == "0" and (not path or path[0].startswith(("[heap]", "[anon")))
            if not rights.startswith("rw-p") or not (plain or (path and path[0].startswith(folder))):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
    return found


def foreign_allocator() -> bool:
    """Whether something else than the C library hands out memory: it may count on zeros where pages were
    given back to the kernel, and find a file's content.
    """
    with open("/proc/self/maps") as lines:
        text = lines.read()
    return any(name in text for name in ("jemalloc", "tcmalloc", "mimalloc", "snmalloc", "libhoard"))


def _checked(address: Optional[int], what: str) -> int:
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, "could not %s: %s" % (what, os.strerror(number)))
    return address


class _Scan(ctypes.Structure):
    """The kernel's struct pm_scan_arg."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages"),
            *("category_inverted", "category_mask", "category_anyof_mask", "return_mask"),
        )
    ]


_FILE, _PRESENT, _SWAPPED = 4, 8, 16
_SCAN = (3 << 30) | (ctypes.sizeof(_Scan) << 16) | (ord("f") << 8) | 16


class Watch:
    """Sees which pages of private file mappings were written: those that the kernel has copied.

    Raises OSError where the kernel does not tell.
    """

    def __init__(self) -> None:
        self._vector = (ctypes.c_uint64 * 3)()
        self._scan: Optional[_Scan] = _Scan(
            size=ctypes.sizeof(_Scan),
            vec=ctypes.addressof(self._vector),
            vec_len=1,
            max_pages=1,
            category_inverted=_FILE,
            category_mask=_FILE,
            category_anyof_mask=_PRESENT | _SWAPPED,
            return_mask=_FILE | _PRESENT | _SWAPPED,
        )
        self._try_out()

    def written(self, areas: Iterable[Tuple[int, int]]) -> bool:
        """Whether any page of the areas (address, bytes) is not the file's. Raises OSError."""
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)  # not kept: a dump would meet it
        try:
            return any(self._written(fd, address, nbytes) for address, nbytes in areas)
        finally:
            os.close(fd)

    def _written(self, fd: int, start: int, nbytes: int) -> bool:
        scan = self._scan
        if scan is None:
            return _look(fd, start, nbytes)
        scan.start, scan.end = start, start + nbytes
        found = _ioctl(fd, _SCAN, ctypes.addressof(scan))
        if found >= 0:
            return found > 0
        number = ctypes.get_errno()
        if number not in (errno.ENOTTY, errno.EINVAL):
            raise OSError(number, "pages could not be scanned")
        self._scan = None  # before Linux 6.7
        return _look(fd, start, nbytes)

    def _try_out(self) -> None:
        """See for certain that a written page is told from one that is not."""
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            file.write(b"\1" * 2 * PAGE)
            file.flush()
            memory = fresh_memory(2 * PAGE)
            place = ctypes.c_ubyte.from_buffer(memory)
            address = ctypes.addressof(place)
            map_over(address, 2 * PAGE, file.fileno(), 0)
            before = self.written([(address, 2 * PAGE)])
            ctypes.c_ubyte.from_address(address + PAGE).value = 2
            after = self.written([(address, PAGE)]), self.written([(address + PAGE, PAGE)])
            del place
        if before or after != (False, True):
            raise OSError(errno.ENOSYS, "this kernel does not show which pages were written")


def _look(fd: int, start: int, nbytes: int) -> bool:
    entries = array.array("Q")
    entries.frombytes(os.pread(fd, nbytes // PAGE * 8, start // PAGE * 8))
    if len(entries) != nbytes // PAGE:
        raise OSError(errno.EIO, "the page map is short")
    return any(entry >> 61 in (2, 4, 6) for entry in entries)  # present or swapped, and not the file's
