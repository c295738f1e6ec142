"""A rank's memory as it was at a cut, kept while the rank runs on: copies of its processes that never run,
whose pages the kernel shares with it until either writes.

So a checkpoint stands still for as long as CRIU takes for everything but memory. Of CRIU's images only the
content of the pages is missing (`hide`: it writes them to /dev/null, at the speed of looking at them); their
list is there, and what it lists is read from the copies later.

A copy shares the table of open files with its original, so that what the job closes is closed; it stands in
the job's own PID namespace, dies with the job or with us, and must be gone before the rank is frozen again.
Where none can be made (another architecture, no memory, a limit of the job's), pages are read at once.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from midstep.agent.drivers import ptrace
from midstep.agent.drivers.criu_images import PAGE_BYTES, PageList, page_lists
from midstep.agent.drivers.errors import TooSlow
from midstep.agent.drivers.follow import RankProcess, children, inner_pid, stat_of

_log = logging.getLogger(__name__)
_NOWHERE = "/dev/null"
_SHARED_DEVICE = "00:01"  # of memory that is shared, in /proc/PID/maps
_SMALL_BYTES = 4 << 20  # copied sooner than a copy of the process is made
_PIECE_BYTES = 4 << 20
_THERE = 1 << 62  # of an entry in /proc/PID/pagemap: in memory, or swapped out
_NOTICED_S = 0.1
_MOST_EARLY = 4096  # pages that a copy has not got


class Unhidden(Exception):
    """CRIU did not number its files as expected, and content is lost. ``numbers``: that may be hidden."""

    def __init__(self, hidden: set[str], numbers: set[int]) -> None:
        super().__init__(f"{sorted(hidden)} were hidden instead of {sorted(numbers)}")
        self.numbers = numbers


@dataclass(slots=True)
class _File:
    """One file of pages that is to be written. ``early``: pages that the copy has not got, by address."""

    name: str
    runs: PageList
    pid: int = 0
    memory: int = -1  # a descriptor: what it reads is never another process
    early: dict[int, bytes] = field(default_factory=dict[int, bytes])

    @property
    def nbytes(self) -> int:
        return sum(count for _, count in self.runs) * PAGE_BYTES


def hideable(p: RankProcess) -> set[int]:
    """The numbers that CRIU will give to the files with private memory; none where there can be no shadow. It
    numbers files as it comes to them: of each process, parents first, the shared memory that it has not seen
    yet, then its private memory."""
    try:
        there = os.stat(f"/proc/{p.init_pid}/root{_NOWHERE}")
    except OSError:
        return set()
    if not ptrace.SUPPORTED or not stat.S_ISCHR(there.st_mode) or there.st_rdev != os.makedev(1, 3):
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


class Shadow:
    """Of one rank, made while it is frozen, after CRIU has dumped it."""

    def __init__(self, p: RankProcess, images: Path, pids: list[int]) -> None:
        """Raises Unhidden, OSError: nothing is left of it, and ``images`` have to be made again."""
        self._wake_read, self._wake = os.pipe2(os.O_CLOEXEC)
        self._made, self._gone = threading.Event(), threading.Event()
        self._lock, self._dropping = threading.Lock(), threading.Lock()
        self._handles: dict[int, int] = {}  # copy -> pidfd
        files, outer = _hidden(images), {inner_pid(pid): pid for pid in pids}
        for inner, file in files.items():
            (images / file.name).unlink()
            file.pid = outer[inner]
        large = {file.pid: file for file in files.values() if file.nbytes > _SMALL_BYTES}
        threading.Thread(target=self._keep, args=(p, large), name=f"shadow-{p.rank}", daemon=True).start()
        self._made.wait()
        self._files = [file for file in files.values() if file.memory >= 0]
        try:
            for file in files.values():
                if file.memory < 0:
                    with _memory_of(file.pid) as memory:
                        _write(images / file.name, file, memory, None)
        except BaseException:
            self.drop()
            raise

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the files that `write` makes."""
        return {file.name: file.nbytes for file in self._files}

    def write(self, folder: Path, end: float) -> int:
        """The pages, by the monotonic time ``end``; returns the bytes. OSError: the copy is gone. TooSlow."""
        with self._lock:
            for file in self._files:
                _write(folder / file.name, file, file.memory, end)
            return sum(self.sizes.values())

    def drop(self) -> None:
        """Its processes are no more when this returns; who writes still gets an OSError."""
        with self._dropping:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
        self._gone.wait()
        with self._lock:
            for file in self._files:
                os.close(file.memory)
            self._files = []

    # In a thread of its own: what one thread traces no other can.

    def _keep(self, p: RankProcess, files: dict[int, _File]) -> None:
        try:
            for pid, file in files.items():
                try:
                    self._copy(p, pid, file)
                except OSError as error:  # then its pages are read at once
                    _log.info("rank %d: no shadow of pid %d: %s", p.rank, pid, error)
            self._made.set()
            self._wait()
        finally:
            self._made.set()
            self._gone.set()

    def _copy(self, p: RankProcess, pid: int, file: _File) -> None:
        beside = int(stat_of(f"/proc/{pid}/stat")[1]) == p.init_pid
        with ptrace.traced(pid) as original:
            copy = original.copy(beside)
            if not beside:  # of a copy of it: when that is gone, init looks after what it leaves
                copy, between = copy.copy(beside=False), copy
                own = inner_pid(between.pid)
                _end(between.pid)
                original.bury(own)
        handle = os.pidfd_open(copy.pid)
        self._handles[copy.pid] = handle
        memory = os.open(f"/proc/{copy.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            file.early = _lacking(pid, copy.pid, file.runs)
        except BaseException:
            os.close(memory)
            raise
        file.memory = memory

    def _wait(self) -> None:
        """Until nobody wants them any more, or they have died: the end of their namespace waits for us."""
        poll = select.poll()
        for handle in (*self._handles.values(), self._wake_read):
            poll.register(handle, select.POLLIN)
        wanted = True
        while wanted and self._handles:
            ready = {descriptor for descriptor, _ in poll.poll()}
            wanted = self._wake_read not in ready
            for pid, handle in list(self._handles.items()):
                if not wanted or handle in ready:
                    _end(pid)
                    poll.unregister(handle)
                    os.close(self._handles.pop(pid))
                    _until_noticed(pid)
        os.close(self._wake_read)


def _end(pid: int) -> None:
    """A copy, which this thread traces: it ends, and its parent can take note of it."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        while os.WIFSTOPPED(os.waitpid(pid, ptrace.ALL_CHILDREN)[1]):
            pass


def _until_noticed(pid: int) -> None:
    """Init takes note of its end in an instant, unless it stands still."""
    end = time.monotonic() + _NOTICED_S
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.001)


def _hidden(images: Path) -> dict[int, _File]:
    """What CRIU wrote nowhere, by the process's own pid. Raises Unhidden."""
    hidden = {path.name for path in images.glob("pages-*.img") if path.is_symlink()}
    lists = page_lists(images)
    found = {pid: _File(_name(number), runs) for pid, (number, runs) in lists.items()}
    if hidden != {file.name for file in found.values()}:
        raise Unhidden(hidden, {number for number, _ in lists.values()})
    return found


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


def _lacking(pid: int, copy: int, runs: PageList) -> dict[int, bytes]:
    """Pages that a program keeps from its children (madvise), out of the original. OSError: they are many."""
    addresses: list[int] = []
    with open(f"/proc/{copy}/pagemap", "rb", buffering=0) as pagemap:
        for start, count in runs:
            entries = array.array("Q", os.pread(pagemap.fileno(), 8 * count, start // PAGE_BYTES * 8))
            if len(entries) < count or min(entries) < _THERE:
                there = [*entries, *[0] * (count - len(entries))]
                addresses += [start + n * PAGE_BYTES for n, entry in enumerate(there) if entry < _THERE]
            if len(addresses) > _MOST_EARLY:
                raise OSError("most of the memory is not in the copy")
    if not addresses:
        return {}
    with _memory_of(pid) as memory:
        return {address: os.pread(memory, PAGE_BYTES, address) for address in addresses}


@contextlib.contextmanager
def _memory_of(pid: int) -> Generator[int]:
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, file: _File, memory: int, end: float | None) -> None:
    piece = memoryview(bytearray(_PIECE_BYTES))
    with open(path, "wb", buffering=0) as target:
        for address, nbytes in _pieces(file.runs):
            if end is not None and time.monotonic() > end:
                raise TooSlow(f"the memory of a rank was not stored in time: at {path.name}")
            view = piece[:nbytes]
            _read(memory, address, view, file.early)
            while view:
                view = view[target.write(view) :]


def _read(memory: int, address: int, view: memoryview, early: dict[int, bytes]) -> None:
    """OSError: the process is gone."""
    if early and any(address <= at < address + len(view) for at in early):
        for at in range(0, len(view), PAGE_BYTES):
            page = early.get(address + at) or os.pread(memory, PAGE_BYTES, address + at)
            view[at : at + PAGE_BYTES] = page
    elif os.preadv(memory, [view], address) < len(view):
        raise OSError("the copy of a rank's memory is gone")


def _pieces(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(address, bytes)"""
    for start, count in runs:
        for at in range(0, count * PAGE_BYTES, _PIECE_BYTES):
            yield start + at, min(_PIECE_BYTES, count * PAGE_BYTES - at)
