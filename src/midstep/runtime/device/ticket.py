"""An operation on tensors of a GPU that its ranks may share."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Any, Callable, List, Optional

from ...mailbox.contract import ChannelError, ChannelTimeout, Op, Ticket
from ...mailbox.patience import Patience
from ..splice.seating import Yielding

if TYPE_CHECKING:
    from .book import Book
    from .exchange import Exchange
    from .table import Spot


class Stage(enum.IntEnum):
    """How far an operation has come, as this rank sees it."""

    PENDING = 0  # nothing of it is to be seen by others
    CONTRIBUTED = 1
    READY = 2  # the result lies in another rank's place
    MAILED = 3  # it went to the host's mailbox instead
    DONE = 4
    FAILED = 5


class DeviceTicket:
    """The mailbox's ``Ticket``, for an operation that may go either way: which, is seen when it is due."""

    peer = -1

    def __init__(self, exchange: "Exchange", book: "Book", op: Op, seq: int, tensor: Any, mark: Any) -> None:
        self.exchange, self.book, self.op, self.seq, self.tensor, self.mark = (
            exchange,
            book,
            op,
            seq,
            tensor,
            mark,
        )
        self.stage = Stage.PENDING
        self.spot: "Optional[Spot]" = None
        self.error = ""
        self.mailed: Optional[Ticket] = None
        self.land: Optional[Callable[[], None]] = None  # what brings the mailbox's result to the device
        self.callbacks: List[Callable[[], None]] = []
        self.posted_s = time.monotonic()

    @property
    def over(self) -> bool:
        return self.stage >= Stage.DONE

    def done(self) -> bool:
        self.exchange.progress(self.book, fetch=True)
        if self.stage is Stage.MAILED and self.mailed is not None and self.mailed.done():
            self._land(0.0)
        return self.over

    def wait(self, timeout_s: Optional[float]) -> None:
        exchange, patience = self.exchange, Patience(timeout_s)
        turn: Optional[Yielding] = None  # where ranks take turns: while another one may compute
        while not self.over:
            seen = self.book.table.change
            exchange.progress(self.book, fetch=turn is None, follow=True)
            if self.stage is Stage.MAILED:
                self._land(patience.left_s)
            elif turn is not None and self.stage is Stage.READY:
                turn.until_our_turn()
                turn = None
                continue
            if self.over:
                break
            if timeout_s == 0.0:
                raise self._late(timeout_s)
            if turn is None:
                turn = Yielding()
                turn.before_sleep()
            exchange.sleep(self.book, seen, patience.slice_s())
            if patience.over() and not self.over:
                raise self._late(timeout_s)
        if turn is not None:
            turn.until_our_turn()
        if self.stage is Stage.FAILED:
            raise ChannelError(self.error)

    def add_done_callback(self, fn: Callable[[], None]) -> None:
        if not self.exchange.call_back(self, fn):
            fn()

    def _land(self, timeout_s: Optional[float]) -> None:
        mailed = self.mailed
        assert mailed is not None
        try:
            mailed.wait(timeout_s)
        except ChannelTimeout:
            raise
        except ChannelError as error:
            self.exchange.failed(self, str(error))
            return
        self.exchange.landed(self)

    def _late(self, timeout_s: Optional[float]) -> ChannelTimeout:
        who = ", ".join(map(str, self.book.absent(self.seq)))
        where = "not contributed by rank %s of the group" % who if who else "not every rank has it"
        text = "%s in group %x did not complete in %.6g s: %s"
        return ChannelTimeout(text % (self.op.kind.name, self.op.gid, timeout_s or 0.0, where))
