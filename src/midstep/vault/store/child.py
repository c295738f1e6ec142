"""A forked process that does a piece of work, and says things.

For work that is made of many short calls: threads wait for each other's interpreter lock more than they work
then. What the other threads of the parent were about is not known in a child, so it takes no lock of theirs.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Generic, NoReturn, TypeVar

Word = TypeVar("Word")


class Killed(Exception):
    """The child ended before its end."""


class Child(Generic[Word]):
    """Runs `work` and tells what it gives, which has to be picklable. ``keep``: descriptors that it needs.
    It ends when nobody listens any more."""

    def __init__(self, work: Callable[[], Iterable[Word]], keep: Sequence[int]) -> None:
        self.connection, theirs = Pipe(duplex=False)
        self.pid = os.fork()
        if not self.pid:
            _tell(theirs, work, keep)
        theirs.close()

    def hear(self) -> Word | None:
        """The next word; None: that was all. OSError of the work; Killed."""
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise Killed from None
        if isinstance(said, BaseException):
            raise said
        return said

    def end(self) -> None:
        """It is done, or nobody wants the rest."""
        self.connection.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _tell(to: Connection, work: Callable[[], Iterable[object]], keep: Sequence[int]) -> NoReturn:
    try:
        gc.disable()  # it would copy what is shared with the parent
        _close_but(*keep, to.fileno())
        for word in work():
            to.send(word)
        to.send(None)
    except BrokenPipeError:  # nobody wants it any more
        pass
    except OSError as error:
        to.send(error)
    finally:
        os._exit(0)


def _close_but(*descriptors: int) -> None:
    """Others than these: the ends of other pipes, and files that are locked as long as any process has them
    open."""
    first = 3
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
