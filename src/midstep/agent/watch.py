"""Has the kernel say when a rank's PID 1 ends, whoever its parent is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from midstep.agent.drivers.launch import RankProcess


class Watch:
    """Follows processes by descriptors of theirs; ``ended`` is called from the event loop, once for each."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._descriptors: dict[int, int] = {}  # pid -> pidfd

    def follow(self, processes: Iterable[RankProcess]) -> None:
        """These, and no others."""
        loop = asyncio.get_running_loop()
        here = {p.init_pid for p in processes}
        for pid in set(self._descriptors) - here:
            descriptor = self._descriptors.pop(pid)
            loop.remove_reader(descriptor)
            os.close(descriptor)
        for pid in here - set(self._descriptors):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                self._ended()
                continue
            self._descriptors[pid] = descriptor
            loop.add_reader(descriptor, self._tell, loop, descriptor)

    def _tell(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        """It stays readable for ever: looked at no more, or the loop would spin until the rank is taken off
        the record, beside the threads that kill and tidy."""
        loop.remove_reader(descriptor)
        self._ended()
