"""Handles of operations under way, as ``torch.distributed`` expects them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false
from __future__ import annotations

import functools
import sys
import threading
from datetime import timedelta
from typing import Any, Callable, List, Optional, Sequence

import torch
from torch import futures

from ..mailbox.contract import ChannelError, ChannelTimeout, Ticket
from . import turns
from .callbacks import pool, when_all
from .torch_types import Work, create_work_from_future, torch_error
from .watchdog import Watchdog

LINGER_S = 0.0005
LINGER_S_PER_BYTE = 1e-9
"""How long ``get_future`` waits for a small operation itself: shorter than waking a thread for it."""

_DEFERRED_S = 0.2

_finishing = threading.Lock()
Future: Any = futures.Future
_watchdog = Watchdog()


def _keeps_python_work() -> bool:
    """Whether this torch keeps the Python half of a ``Work`` alive while only C++ holds it."""
    major, minor = (int(n) for n in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 8)


KEEPS_PYTHON_WORK = _keeps_python_work()


class OpWork(Work):
    """One operation. Whoever waits completes it: no other thread takes part unless a future is asked for."""

    def __init__(
        self,
        tickets: Sequence[Ticket],
        timeout_s: float,
        results: List[Any],
        finish: Optional[Callable[[], None]] = None,
        linger_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.over = False
        self.awaited = False  # by DDP, at the end of the backward
        self.error: Optional[BaseException] = None
        self.tickets = tickets
        self._timeout_s = timeout_s
        self._results = results
        self._finish = finish
        self._linger_s = linger_s
        self._future: Optional[OpFuture] = None

    def wait(self, timeout: Optional[timedelta] = None) -> bool:
        """Return when the result is in place.

        Raises RuntimeError when the operation failed or was not joined by all in the group's (or this) time.
        """
        if not self.over:
            self.complete(timeout.total_seconds() if timeout else self._timeout_s)
        if self.error is not None:
            raise self.error
        return True

    def complete(self, timeout_s: Optional[float]) -> None:
        """Wait and put the result in place; a failure is kept for ``wait``, a timeout is raised."""
        try:
            for ticket in self.tickets:
                ticket.wait(timeout_s)
        except ChannelTimeout as error:
            raise dist_error(error, timeout_s) from None
        except ChannelError as error:
            self.error = dist_error(error)
        else:
            if self._finish is not None:
                self._run_finish()
        self.over = True

    def try_complete(self, timeout_s: float) -> bool:
        """As ``complete``, and hand the result to the future; whether it is over."""
        if not self.over:
            try:
                self.complete(timeout_s)
            except RuntimeError:
                return False
        _watchdog.forget(self)
        if self._future is not None:
            self._future.resolve()
        return True

    def mind(self) -> None:
        """Have the mailbox's thread complete it, if anybody may ask."""
        _watchdog.forget(self)
        if self._future is not None:
            _watchdog.watch(self._future, self._timeout_s, self._future.expire)
            self._future.mind()

    def _run_finish(self) -> None:
        with _finishing:
            if self._finish is not None:
                self._finish()
                self._finish = None  # not before: another thread that comes now has to wait

    def late(self) -> BaseException:
        """The error of an operation that the group's time was not enough for."""
        try:
            for ticket in self.tickets:
                ticket.wait(0.0)
        except ChannelError as error:
            return dist_error(error, self._timeout_s)
        return RuntimeError("the operation completed after its time was over")

    def is_completed(self) -> bool:
        if not self.over and all(ticket.done() for ticket in self.tickets):
            self.complete(0.0)
        return self.over

    def is_success(self) -> bool:
        return self.is_completed() and self.error is None

    def exception(self) -> Optional[BaseException]:
        return self.error

    def result(self) -> List[Any]:
        return self._results

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()

    def limit(self, timeout: timedelta) -> OpWork:
        """Wait this long at most, instead of the group's time."""
        self._timeout_s = timeout.total_seconds()
        return self

    def source_rank(self) -> int:
        return self.tickets[0].peer

    _source_rank = source_rank

    def get_future(self) -> OpFuture:
        """The future of the results; made on demand, since most callers only wait."""
        future = self._future
        if future is None:
            self._future = future = OpFuture(self)
            if self._linger_s and not self.over and not turns.shared():
                self._linger()
            if self.over or not self.tickets:
                future.resolve()
            else:
                self._see_to(future)
        return future

    get_future_result = get_future

    def _see_to(self, future: OpFuture) -> None:
        """Somebody may wait for a future without a word. The deadlines' thread is not begun where the end of
        the backward will see to it: in a process of one thread the C library needs no locks."""
        if not turns.waits_at_the_end(self):
            self.mind()
        elif turns.asked_by_the_engine(sys._getframe(2)):
            self.awaited = True
        else:
            _watchdog.watch(future, self._timeout_s, future.expire)
            _watchdog.watch(self, _DEFERRED_S, future.mind)  # should it not come to that

    def _linger(self) -> None:
        try:
            self.complete(self._linger_s)
        except RuntimeError:
            pass  # not yet: the mailbox's thread will complete it


class OpFuture(Future):
    """The future of an operation: a waiting caller completes the operation itself."""

    def __new__(cls, work: OpWork) -> Any:
        return super().__new__(cls)

    def __init__(self, work: OpWork) -> None:
        devices = {t.device for t in work.result() if isinstance(t, torch.Tensor) and t.is_cuda}
        if devices:
            super().__init__(devices=sorted(devices, key=str))
        else:
            super().__init__()
        self._work: Optional[OpWork] = work  # None once there is an outcome: they would keep each other alive
        self._unresolved = [True]
        self._has_callbacks = False

    def wait(self) -> Any:
        work = self._work
        if self._unresolved and work is not None:
            try:
                work.wait()
            except RuntimeError as error:
                self._give_up(error)
            self.resolve()
        return super().wait()

    def then(self, callback: Any) -> Any:
        self._has_callbacks = True
        return super().then(callback)

    def add_done_callback(self, callback: Any) -> None:
        self._has_callbacks = True
        super().add_done_callback(callback)

    def resolve(self) -> None:
        """Put the result of the operation, which is done or has failed, in place and hand it out: once."""
        work = self._work
        if work is None:
            return
        if not work.over:
            work.complete(0.0)
        if self._claim():
            if work.error is not None:
                self.set_exception(work.error)
            else:
                self.set_result(work.result())
            self._work = None

    def mind(self) -> None:
        """Have the mailbox's thread resolve it."""
        work = self._work
        if work is not None:
            when_all(work.tickets, self.resolve_from_thread)

    def resolve_from_thread(self) -> None:
        """As ``resolve``, in the mailbox's own thread, which must not run callbacks: they may block."""
        if self._has_callbacks:
            pool().submit(self.resolve)
        else:
            self.resolve()

    def expire(self) -> None:
        """The group's time is over: fail, with the mailbox's account of who did not come."""
        work = self._work
        if work is None:
            return
        try:
            work.complete(0.0)
        except RuntimeError:
            self._give_up(work.late())
        else:
            self.resolve_from_thread()

    def _give_up(self, error: BaseException) -> None:
        if self._claim():
            self.set_exception(error)
            self._work = None

    def _claim(self) -> bool:
        """Whether the caller is the one who sets the outcome (``pop`` is atomic)."""
        _watchdog.forget(self)
        try:
            return self._unresolved.pop()
        except IndexError:
            return False


def dist_error(error: ChannelError, timeout_s: Optional[float] = None) -> BaseException:
    """torch's own RuntimeError for an operation that failed or, after ``timeout_s``, timed out."""
    kind = torch_error("DistBackendError")
    if timeout_s is None:
        return kind(str(error))
    return kind(f"[midstep] Timed out waiting {int(timeout_s * 1000)}ms for the operation: {error}")


def done_work(results: List[Any]) -> OpWork:
    """A handle of something that is over already."""
    work = OpWork((), 0.0, results)
    work.over = True
    return work


def survives_in_cpp(method: Callable[..., OpWork]) -> Callable[..., Any]:
    """For an older torch: the method returning a handle that C++ can hold without its Python half."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return create_work_from_future(method(*args, **kwargs).get_future())

    return wrapped
