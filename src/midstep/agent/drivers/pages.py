"""The memory of a rank that a checkpoint stores when the rank runs on again.

CRIU dumps a rank without it, in about a tenth of the time: of its images only the content of private pages is
missing (`hide`: it writes them to /dev/null, at the speed of looking at them). Their lists are there, and by
them `Pages` take what is to be stored: a copy (`midstep.agent.drivers.buffers`), or a shadow of the processes
(`midstep.agent.drivers.shadow`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from midstep.agent.drivers.criu_images import PAGE_BYTES, PageList, page_lists
from midstep.agent.drivers.errors import TooSlow
from midstep.agent.drivers.follow import RankProcess, children, inner_pid, stat_of

PIECE_BYTES = 4 << 20
_NOWHERE = "/dev/null"
_SHARED_DEVICE = "00:01"  # of memory that is shared, in /proc/PID/maps


class Unhidden(Exception):
    """CRIU did not number its files as expected, and content is lost. ``numbers``: that may be hidden."""

    def __init__(self, hidden: set[str], numbers: set[int]) -> None:
        super().__init__(f"{sorted(hidden)} were hidden instead of {sorted(numbers)}")
        self.numbers = numbers


@dataclass(frozen=True, slots=True)
class PageFile:
    """One of CRIU's files, whose content is missing: pages of process ``pid``."""

    name: str
    pid: int
    runs: PageList

    @property
    def nbytes(self) -> int:
        """Of the whole file."""
        return sum(count for _, count in self.runs) * PAGE_BYTES

    def pieces(self) -> Iterator[tuple[int, int]]:
        """All of it in order, a few MB each: (address, bytes)."""
        for start, count in self.runs:
            yield from in_pieces(start, count * PAGE_BYTES)


def in_pieces(address: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """So many bytes of memory: (address, bytes)."""
    for at in range(0, nbytes, PIECE_BYTES):
        yield address + at, min(PIECE_BYTES, nbytes - at)


class Pages(Protocol):
    """Of one rank. Nothing is in it unless `take` was called, and came to its end."""

    def take(self, p: RankProcess, images: Path, files: Sequence[PageFile]) -> None:
        """While the rank is frozen, after CRIU has dumped it. OSError: nothing was taken."""
        ...

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the files that `write` makes."""
        ...

    @property
    def descriptors(self) -> list[int]:
        """What `write` reads."""
        ...

    def write(self, folder: Path, end: float) -> int:
        """The files, by the monotonic time ``end``; returns the bytes. A forked child may do it. OSError:
        they were dropped, or are gone. TooSlow."""
        ...

    def drop(self) -> None:
        """They are not needed any more."""
        ...


def hideable(p: RankProcess) -> set[int]:
    """The numbers that CRIU will give to the files with private memory; none where nothing can be hidden. It
    numbers files as it comes to them: of each process, parents first, the shared memory that it has not seen
    yet, then its private memory."""
    try:
        there = os.stat(f"/proc/{p.init_pid}/root{_NOWHERE}")
    except OSError:
        return set()
    if not stat.S_ISCHR(there.st_mode) or there.st_rdev != os.makedev(1, 3):
        return set()
    numbers: set[int] = set()
    known: set[int] = set()
    for pid in _depth_first(p.init_pid):
        if stat_of(f"/proc/{pid}/stat")[0] not in ("Z", "X"):
            known |= _shared(pid)
            numbers.add(len(known) + len(numbers) + 1)
    return numbers


def hide(images: Path, numbers: set[int]) -> None:
    """Before CRIU dumps a rank: have the content of these files written nowhere."""
    for number in numbers:
        (images / _name(number)).symlink_to(_NOWHERE)


def hidden(images: Path, pids: list[int]) -> list[PageFile]:
    """What CRIU wrote nowhere. Raises Unhidden."""
    names = {path.name for path in images.glob("pages-*.img") if path.is_symlink()}
    lists, outer = page_lists(images), {inner_pid(pid): pid for pid in pids}
    found = [PageFile(_name(number), outer[pid], runs) for pid, (number, runs) in lists.items()]
    if names != {file.name for file in found}:
        raise Unhidden(names, {number for number, _ in lists.values()})
    for name in names:
        (images / name).unlink()
    return found


def write_pieces(
    path: Path, pieces: Iterable[tuple[int, int]], read: Callable[[int, memoryview], None], end: float
) -> None:
    """A file out of pieces of memory, (address, at most PIECE_BYTES), that ``read`` fetches. TooSlow."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    with open(path, "wb", buffering=0) as target:
        for address, nbytes in pieces:
            if time.monotonic() > end:
                raise TooSlow(f"the memory of a rank was not stored in time: at {path.name}")
            view = buffer[:nbytes]
            read(address, view)
            while view:
                view = view[target.write(view) :]


@contextlib.contextmanager
def memory_of(pid: int) -> Generator[int]:
    """A descriptor of a process's memory. OSError: it is gone."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _name(number: int) -> str:
    return f"pages-{number}.img"


def _depth_first(pid: int) -> Iterator[int]:
    yield pid
    for child in children(pid):
        yield from _depth_first(child)


def _shared(pid: int) -> set[int]:
    """Memory of several processes that has no name in any file system: its inodes."""
    found: set[int] = set()
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, _, _, device, inode, *path = line.split(maxsplit=5)
            if device == _SHARED_DEVICE and inode != "0" and not path[0].startswith("/SYSV"):
                found.add(int(inode))
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(path := f"/proc/{pid}/fd/{number}").startswith("/memfd:"):
                found.add(os.stat(path).st_ino)
    return found
