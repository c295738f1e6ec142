"""Carries reductions of ranks that share a GPU: parts are put into device memory that the others map.

Nothing else is sent. Where ranks do not (or no longer) sit on one GPU, an operation that is not complete goes
through the mailbox, under the number that the channel had kept for it: a resize between two contributions
changes nothing but the way. Whoever waits does the work; a thread of this process's own does what nobody
waits for, and parts when it is asked to.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from ...mailbox import futex
from ...mailbox.contract import Op
from ...mailbox.seat import Seating
from .book import Book
from .pool import Memory
from .site import Seated, Site
from .ticket import DeviceTicket, Stage

_NAP_S = 0.005
_IDLE_S = 0.25
_OLD_S = 0.05  # peers may need an operation to go on, although nobody waits for it here
Mail = Callable[[DeviceTicket], None]


class Exchange:
    """One for a process. Any thread may call; ``seated`` answers the seating, None before it is known."""

    def __init__(self, world: str, me: int, memory: Memory, seated: Seated) -> None:
        self._world, self._me, self._memory, self._seated = world, me, memory, seated
        self._lock = threading.RLock()
        self._site: Optional[Site] = None
        self._books: Dict[int, Book] = {}
        self._minder: Optional[threading.Thread] = None
        self._owner = os.getpid()

    # What the process group asks.

    def post(
        self, gid: int, ranks: Sequence[int], me: int, op: Op, seq: int, tensor: Any, mail: Mail
    ) -> DeviceTicket:
        """Begin an operation on a contiguous tensor. ``ranks``: the group's, as the proxies number them;
        ``mail`` posts it on the mailbox instead."""
        with self._lock:
            book = self._books.get(gid)
            if book is None:
                book = self._books[gid] = Book(self._world, gid, tuple(ranks), me, mail)
            ticket = DeviceTicket(self, book, op, seq, tensor, self._memory.mark(tensor))
            book.tickets.append(ticket)
        if self._minder is None:
            self._minder = threading.Thread(target=self._mind, name="midstep-device", daemon=True)
            self._minder.start()
        return ticket

    def fetch(self, ticket: DeviceTicket) -> Any:
        """A copy of the operation's input in host memory."""
        with self._memory.queue():
            self._memory.after(ticket.mark)
            return ticket.tensor.cpu()

    def store(self, ticket: DeviceTicket, result: Any) -> None:
        """Bring a result from host memory to the operation's tensor."""
        with self._memory.queue():
            ticket.tensor.copy_(result)
            self._memory.finish()

    def close(self, gid: int) -> None:
        """The group has ended."""
        with self._lock:
            book = self._books.pop(gid, None)
            if book is not None and not book.tickets:
                book.table.close()

    # What tickets ask.

    def progress(self, book: Book, fetch: bool, aside: bool = False, follow: bool = False) -> None:
        """Do what can be done for a group's operations without waiting for other ranks. ``fetch``: also take
        results (``follow``: in place for what the caller queues on the device from now on); ``aside``: do not
        wait for this rank's own work on the device either."""
        with self._lock:
            try:
                if book.pending:
                    self._go_on(book, aside)
                ended = book.collect(self._memory, fetch, follow)
            except (MemoryError, OverflowError, RuntimeError, ValueError, OSError) as error:
                ended = list(book.tickets)
                for ticket in ended:
                    ticket.error = "%s: %s" % (ticket.op.kind.name, error)
                    ticket.stage = Stage.FAILED
        for ticket in ended:
            self._end(ticket, ticket.stage)

    def sleep(self, book: Book, seen: int, slice_s: float) -> None:
        """Until something changes; ``seen``: the table's change, read before looking."""
        slow = book.pending and (self._site is None or not self._site.here)
        futex.wait(book.table.change_at, seen, min(slice_s, _NAP_S) if slow else slice_s)

    def call_back(self, ticket: DeviceTicket, fn: Callable[[], None]) -> bool:
        """Call it when the ticket is over; False: it is."""
        with self._lock:
            if ticket.over:
                return False
            ticket.callbacks.append(fn)
        site = self._site
        futex.wake(ticket.book.table.change_at)
        if site is not None:
            futex.wake(site.change_at)
        return True

    def landed(self, ticket: DeviceTicket) -> None:
        """The mailbox's result is there."""
        with self._lock:
            land, ticket.land = ticket.land, None
            if land is not None:
                land()
        self._end(ticket, Stage.DONE)

    def failed(self, ticket: DeviceTicket, error: str) -> None:
        """The mailbox says so."""
        ticket.error = error
        self._end(ticket, Stage.FAILED)

    def _go_on(self, book: Book, aside: bool) -> None:
        """See where the group's ranks sit, and send what is pending that way."""
        seat = self._seated()
        if seat is None:
            return
        if not set(book.ranks) <= set(seat.ranks):
            book.mail(book.pending)
        else:
            book.contribute(self._site_of(seat), self._seated, aside)

    def _site_of(self, seat: Seating) -> Site:
        site = self._site
        if site is None or site.seat != seat:
            if site is not None:
                site.leave()
            site = self._site = Site(self._world, seat, self._me, self._memory)
        return site

    def _end(self, ticket: DeviceTicket, stage: Stage) -> None:
        with self._lock:
            ticket.stage = stage
            if ticket in ticket.book.tickets:
                ticket.book.tickets.remove(ticket)
            if ticket.mark is not None:
                self._memory.done_with(ticket.mark)
            ticket.tensor = ticket.mark = None
            callbacks, ticket.callbacks = ticket.callbacks, []
        for fn in callbacks:
            fn()

    # A thread of our own.

    def _mind(self) -> None:
        while os.getpid() == self._owner:
            site, books = self._site, list(self._books.values())
            words = [(site.change_at, site.change)] if site is not None else []
            # Only what somebody hangs on: whoever waits looks for himself, and this thread takes turns with
            # the job's own.
            words += [(book.table.change_at, book.table.change) for book in books if book.called_for]
            if site is not None and site.parting and site.here:
                self._part(site)
            slice_s = min([self._tend(book) for book in books], default=_IDLE_S)
            if words:
                futex.WaitMany([at for at, _ in words]).wait([seen for _, seen in words], slice_s)
            else:
                time.sleep(slice_s)

    def _tend(self, book: Book) -> float:
        """Do what nobody waits for; after how many seconds to look again."""
        tickets, now_s = list(book.tickets), time.monotonic()
        if book.called_for:
            self.progress(book, fetch=True, aside=True)
        elif any(t.stage is Stage.PENDING and now_s - t.posted_s > _OLD_S for t in tickets):
            self.progress(book, fetch=False, aside=True)
        for ticket in tickets:
            if ticket.stage is Stage.MAILED:
                ticket.done()
        if any(t.stage is Stage.MAILED or (t.callbacks and not t.over) for t in tickets):
            return _NAP_S
        return _OLD_S if tickets else _IDLE_S

    def _part(self, site: Site) -> None:
        """Settle with the others what is under way, take what is ready, and let go of their memory."""
        with self._lock:
            site.begin_to_part()
        while not site.all_are_parting():
            if site.called_off():
                return
            futex.wait(site.change_at, site.change, _NAP_S)
        ended: List[DeviceTicket] = []
        with self._lock:
            for book in self._books.values():
                ended += book.settle(self._memory)
            site.settled()
        while not site.all_are_settled():
            futex.wait(site.change_at, site.change, _NAP_S)
        with self._lock:
            site.part()
        for ticket in ended:
            self._end(ticket, Stage.DONE)
