"""A rank's memory as it was at a cut, kept while the rank runs on: copies of its processes that never run,
whose pages the kernel shares with it until either writes. For where there is no memory for a copy of it all.

A copy of a process shares the table of open files with its original, so that what the job closes is closed;
it stands in the job's own PID namespace, dies with the job or with us, and must be gone before the rank is
frozen again. Where none can be made (another architecture, no memory, a limit of the job's), pages are read
at once.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from midstep.agent.drivers import ptrace
from midstep.agent.drivers.criu_images import PAGE_BYTES, PageList
from midstep.agent.drivers.follow import RankProcess, inner_pid, stat_of
from midstep.agent.drivers.pages import PageFile, memory_of, write_pieces

_log = logging.getLogger(__name__)
_SMALL_BYTES = 4 << 20  # copied sooner than a copy of the process is made
_THERE = 1 << 62  # of an entry in /proc/PID/pagemap: in memory, or swapped out
_NOTICED_S = 0.1
_AT_ONCE_S = 600.0
_MOST_EARLY = 4096  # pages that a copy has not got


@dataclass(slots=True)
class _Source:
    """Of one file. ``memory``: a descriptor, so what is read is never another process; ``early``: pages that
    the copy has not got, by address."""

    file: PageFile
    memory: int = -1
    early: dict[int, bytes] = field(default_factory=dict[int, bytes])


class Shadow:
    """`Pages` of one rank."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[int, int] = {}  # copy -> pidfd
        self._sources: list[_Source] = []
        self._wake = -1
        self._gone = threading.Event()

    def take(self, p: RankProcess, images: Path, files: Sequence[PageFile]) -> None:
        """As `Pages` says."""
        if not ptrace.SUPPORTED:
            raise OSError("not on this architecture")
        read, self._wake = os.pipe2(os.O_CLOEXEC)
        made, sources = threading.Event(), [_Source(file) for file in files]
        large = [source for source in sources if source.file.nbytes > _SMALL_BYTES]
        arguments = (p, large, made, read)
        threading.Thread(target=self._keep, args=arguments, name=f"shadow-{p.rank}", daemon=True).start()
        made.wait()
        self._sources = [source for source in sources if source.memory >= 0]
        try:
            for source in sources:
                if source.memory < 0:
                    with memory_of(source.file.pid) as memory:
                        _write(images / source.file.name, source, memory, time.monotonic() + _AT_ONCE_S)
        except BaseException:
            self.drop()
            self._sources = []
            raise

    @property
    def sizes(self) -> dict[str, int]:
        """As `Pages` says."""
        return {source.file.name: source.file.nbytes for source in self._sources}

    @property
    def descriptors(self) -> list[int]:
        """As `Pages` says."""
        return [source.memory for source in self._sources]

    def write(self, folder: Path, end: float) -> int:
        """As `Pages` says."""
        for source in self._sources:
            _write(folder / source.file.name, source, source.memory, end)
        return sum(self.sizes.values())

    def drop(self) -> None:
        """As `Pages` says. Its processes are no more when this returns."""
        with self._lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
                self._gone.wait()
                for source in self._sources:
                    os.close(source.memory)
                    source.memory = -1

    # In a thread of its own: what one thread traces no other can.

    def _keep(self, p: RankProcess, sources: list[_Source], made: threading.Event, wake: int) -> None:
        try:
            for source in sources:
                try:
                    self._copy(p, source)
                except OSError as error:  # then its pages are read at once
                    _log.info("rank %d: no shadow of pid %d: %s", p.rank, source.file.pid, error)
            made.set()
            self._wait(wake)
        finally:
            made.set()
            self._gone.set()

    def _copy(self, p: RankProcess, source: _Source) -> None:
        pid = source.file.pid
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
            source.early = _lacking(pid, copy.pid, source.file.runs)
        except BaseException:
            os.close(memory)
            raise
        source.memory = memory

    def _wait(self, wake: int) -> None:
        """Until nobody wants them any more, or they have died: the end of their namespace waits for us."""
        poll = select.poll()
        for handle in (*self._handles.values(), wake):
            poll.register(handle, select.POLLIN)
        wanted = True
        while wanted and self._handles:
            ready = {descriptor for descriptor, _ in poll.poll()}
            wanted = wake not in ready
            for pid, handle in list(self._handles.items()):
                if not wanted or handle in ready:
                    _end(pid)
                    poll.unregister(handle)
                    os.close(self._handles.pop(pid))
                    _until_noticed(pid)
        os.close(wake)


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
    with memory_of(pid) as memory:
        return {address: os.pread(memory, PAGE_BYTES, address) for address in addresses}


def _write(path: Path, source: _Source, memory: int, end: float) -> None:
    write_pieces(path, source.file.pieces(), lambda at, into: _read(memory, at, into, source.early), end)


def _read(memory: int, address: int, view: memoryview, early: dict[int, bytes]) -> None:
    """OSError: the process is gone."""
    if early and any(address <= at < address + len(view) for at in early):
        for at in range(0, len(view), PAGE_BYTES):
            page = early.get(address + at) or os.pread(memory, PAGE_BYTES, address + at)
            view[at : at + PAGE_BYTES] = page
    elif os.preadv(memory, [view], address) < len(view):
        raise OSError("the copy of a rank's memory is gone")
