"""The process's one channel: made on first use, and anew in a forked child, whose mailbox must be its own."""

from __future__ import annotations

import os
import threading
from typing import Callable, Optional, Tuple

from ..mailbox.contract import Channel

_lock = threading.Lock()
_current: Optional[Tuple[int, Channel]] = None
_factory: Optional[Callable[[], Channel]] = None


def the_channel() -> Channel:
    """The channel of this process."""
    global _current
    with _lock:
        if _current is None or _current[0] != os.getpid():
            _current = (os.getpid(), _make())
        return _current[1]


def use_factory(factory: Optional[Callable[[], Channel]]) -> None:
    """Make channels like this from now on (tests put an in-process one here)."""
    global _factory, _current
    _factory, _current = factory, None


def _make() -> Channel:
    if _factory is not None:
        return _factory()
    from ..mailbox.channel import MailboxChannel
    from .worlds import SIZE_VARIABLE, job_rank

    return MailboxChannel(job_rank(), int(os.environ.get(SIZE_VARIABLE, "0")), os.environ.get("MIDSTEP_RUN"))
