"""When several operations are over, and who runs what follows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, Sequence

from ..mailbox.contract import Ticket

_workers: Optional[ThreadPoolExecutor] = None


def when_all(tickets: Sequence[Ticket], fn: Callable[[], None]) -> None:
    """Call ``fn`` once when every ticket is done."""
    if len(tickets) == 1:
        tickets[0].add_done_callback(fn)
        return
    left = list(range(len(tickets)))
    lock = threading.Lock()

    def one() -> None:
        with lock:
            left.pop()
            last = not left
        if last:
            fn()

    for ticket in tickets:
        ticket.add_done_callback(one)


def pool() -> ThreadPoolExecutor:
    """The threads that run what a job has hung on futures: such code may block."""
    global _workers
    if _workers is None:
        _workers = ThreadPoolExecutor(max_workers=64, thread_name_prefix="midstep-callbacks")
    return _workers
