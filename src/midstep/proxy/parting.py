"""Before ranks leave their GPU: have them let go of each other's device memory, which no checkpoint takes.

Ranks that share a GPU meet on a ground in their home's shared memory (``mailbox/ground.py``). Asked to part,
they settle what is complete, withdraw what is not, and unmap. They do it in a thread of their own, so they
have to run.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator

from midstep.mailbox import futex
from midstep.mailbox.ground import CHANGE_AT, FOLDER, LOCK_AT, PREFIX, SIGN, Ground, Stand, epoch_of
from midstep.mailbox.lock import SharedLock
from midstep.proxy.errors import ProxyError

_APART = (Stand.ABSENT, Stand.PARTED)
_OURS = os.O_CLOEXEC | os.O_NOFOLLOW  # the folder is the job's: a link there could lead anywhere
_POLL_S = 0.0005
_AGAIN_S = 0.1
_LOCK_S = 2.0


class StillTogether(ProxyError):
    """Ranks did not part in time; they go on as before when they are called back."""


def part(pids: Iterable[int], limit_s: float) -> int:
    """Ask all ranks that share GPUs in the homes of these processes to part, and wait until they have, at
    most ``limit_s`` seconds. Returns how many grounds there are. Raises StillTogether."""
    pids = list(pids)
    with contextlib.ExitStack() as stack:
        for pid in pids:
            with contextlib.suppress(OSError):  # before the grounds are looked for
                os.close(os.open(f"/proc/{pid}/root{SIGN}", os.O_WRONLY | os.O_CREAT | _OURS, 0o600))
        grounds = [ground for _, ground in _grounds(pids, stack)]
        for ground in grounds:
            ground.parting(True)
        end_s = time.monotonic() + limit_s
        asked_s = time.monotonic()
        while waiting := [ground for ground in grounds if not ground.parted]:
            now_s = time.monotonic()
            if now_s > end_s:
                left = sum(len(ground.together()) for ground in waiting)
                raise StillTogether(
                    f"{left} ranks did not let go of the GPU memory that they share in {limit_s:.0f} s"
                )
            if now_s - asked_s > _AGAIN_S:
                asked_s = now_s
                for ground in waiting:
                    ground.wake()
            time.sleep(_POLL_S)
        return len(grounds)


def call_back(pids: Iterable[int], still: Callable[[int], bool]) -> None:
    """Ranks that run on where they were may share again: those on grounds of an epoch that is ``still``
    theirs."""
    pids = list(pids)
    with contextlib.ExitStack() as stack:
        for epoch, ground in _grounds(pids, stack):
            if still(epoch):
                ground.parting(False)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.unlink(f"/proc/{pid}/root{SIGN}")


class _Seen:
    """A ground, from outside its home."""

    def __init__(self, fd: int) -> None:
        """Raises ValueError: it is none (yet)."""
        self._memory = mmap.mmap(fd, 0)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self._view = memoryview(self._memory)
        self._ground = Ground(self._view)
        if not self._ground.is_one:
            self.close()
            raise ValueError("not a ground")

    def parting(self, parting: bool) -> None:
        lock = SharedLock(ctypes.addressof(self._anchor) + LOCK_AT)
        held = lock.acquire(_LOCK_S)  # a rank that was killed with it keeps it for ever
        self._ground.parting = parting
        if held:
            lock.release()
        self.wake()

    @property
    def parted(self) -> bool:
        return not self.together()

    def together(self) -> list[Stand]:
        return [stand for stand in self._ground.stands() if stand not in _APART]

    def wake(self) -> None:
        self._ground.changed()
        futex.wake(ctypes.addressof(self._anchor) + CHANGE_AT)

    def close(self) -> None:
        self._ground.release()
        self._view.release()
        del self._anchor
        self._memory.close()


def _grounds(pids: Iterable[int], stack: contextlib.ExitStack) -> Iterator[tuple[int, _Seen]]:
    known: set[tuple[int, int]] = set()
    for pid in pids:
        folder = f"/proc/{pid}/root{FOLDER}"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if not name.startswith(PREFIX):
                    continue
                with contextlib.suppress(OSError, ValueError):
                    fd = os.open(f"{folder}/{name}", os.O_RDWR | _OURS)
                    try:
                        facts = os.fstat(fd)
                        if (facts.st_dev, facts.st_ino) in known:
                            continue
                        known.add((facts.st_dev, facts.st_ino))
                        seen = _Seen(fd)
                    finally:
                        os.close(fd)
                    stack.callback(seen.close)
                    yield epoch_of(name), seen
