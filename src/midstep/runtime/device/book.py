"""The operations of one group, as this rank sees them; every method with the exchange's lock held.

An operation over the GPU is settled by whoever comes last: it reads the parts of the others, combines them
along the tree, and leaves the result in its own place, from which the others take it.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import os
from typing import Any, Callable, List, Optional, Tuple

from ...mailbox import futex, ground
from ...mailbox.contract import Op
from .arithmetic import combine
from .pool import Memory, Pool
from .site import Seated, Site
from .table import Table, Way
from .ticket import DeviceTicket, Stage

_NAP_S = 0.005


class Book:
    """``ranks``: the group's, as the proxies number them; ``mail`` posts an operation on the mailbox."""

    def __init__(
        self, world: str, gid: int, ranks: Tuple[int, ...], me: int, mail: Callable[[DeviceTicket], None]
    ) -> None:
        """Raises OSError."""
        self.ranks, self.me, self._mail = ranks, me, mail
        path = os.path.join(ground.FOLDER, "midstep-group-%s-%x" % (world, gid))
        self.table = Table(path, len(ranks), str(ranks[me]))
        self.site: Optional[Site] = None
        self.tickets: List[DeviceTicket] = []  # that are not over, in the order of posting
        self._taking: List[Tuple[Any, List[int]]] = []  # results that are being read: until when, which

    def absent(self, seq: int) -> List[int]:
        """The ranks that have not contributed to an operation."""
        if not self.table.is_of(seq):
            return list(self.ranks)
        return [rank for row, rank in enumerate(self.ranks) if not self.table.has(seq, row)]

    def is_last(self, seq: int) -> bool:
        """Whether all others have contributed."""
        return self.table.count(seq) >= len(self.ranks) - 1

    @property
    def pending(self) -> List[DeviceTicket]:
        return [ticket for ticket in self.tickets if ticket.stage is Stage.PENDING]

    @property
    def called_for(self) -> bool:
        """Whether somebody is to be called when an operation is over."""
        return any(ticket.callbacks for ticket in list(self.tickets))

    def mail(self, tickets: List[DeviceTicket]) -> None:
        """What has not begun over the GPU goes to the mailbox."""
        for ticket in tickets:
            with self.table.locked():
                way = self._claim(ticket)
                if way in (Way.OPEN, Way.MAIL):
                    self.table.mail(ticket.seq)
            if way not in (Way.OPEN, Way.MAIL):
                return  # others have begun with it over the GPU: they part first
            self._mail(ticket)
            ticket.stage = Stage.MAILED

    def contribute(self, site: Site, seated: Seated, aside: bool) -> None:
        """Put in what is pending; where this rank is the last one, also combine. ``aside``: only parts that
        are computed."""
        self.mail([t for t in self.pending if self.table.is_of(t.seq) and self.table.way(t.seq) is Way.MAIL])
        pool = site.arrive(seated)
        if pool is None:
            return
        self.site = site
        put: List[DeviceTicket] = []
        copied = False
        with site.memory.queue():
            for ticket in self.pending:
                if aside and not site.memory.passed(ticket.mark):
                    break
                last = self._put(site, pool, ticket)
                if last is None:
                    break
                put.append(ticket)
                copied = copied or not last
            if copied:
                site.memory.finish()
        if put and site.here:  # else asked to part meanwhile: they stay pending
            self._combine(site, self._publish(put))

    def collect(self, memory: Memory, fetch: bool, follow: bool) -> List[DeviceTicket]:
        """What is over now. Results of others are taken, or (not ``fetch``) seen. ``follow``: what
        the caller queues on the device next comes after that."""
        table, site = self.table, self.site
        self._took(memory)
        ready = [
            t for t in self.tickets if t.stage in (Stage.CONTRIBUTED, Stage.READY) and table.ready(t.seq)
        ]
        for ticket in ready:
            ticket.stage = Stage.READY
        if fetch and ready and site is not None:
            with site.memory.queue():
                for ticket in ready:
                    root = table.root(ticket.seq)
                    flat = ticket.tensor.view(-1)
                    flat.copy_(site.tensor(self._row_of(site, root), table.spot(ticket.seq, root), flat))
            mark = memory.follow()
            self._taking.append((mark, [ticket.seq for ticket in ready]))
            if not follow:
                memory.until(mark)
                self._took(memory)
            for ticket in ready:
                ticket.stage = Stage.DONE
        return [ticket for ticket in self.tickets if ticket.over]

    def _took(self, memory: Memory) -> None:
        """What has been read may be overwritten."""
        done = [taking for taking in self._taking if memory.passed(taking[0])]
        if not done:
            return
        self._taking = [taking for taking in self._taking if taking not in done]
        with self.table.locked():
            for mark, seqs in done:
                memory.done_with(mark)
                for seq in seqs:
                    self.table.took(seq)

    def settle(self, memory: Memory) -> List[DeviceTicket]:
        """Nobody contributes any more: take what is complete, withdraw what is not. What is over."""
        for ticket in self.tickets:
            if ticket.stage is Stage.CONTRIBUTED and self.table.count(ticket.seq) == len(self.ranks):
                while not self.table.ready(ticket.seq):
                    futex.wait(self.table.change_at, self.table.change, _NAP_S)
        ended = self.collect(memory, fetch=True, follow=False)
        for mark, _ in self._taking:
            memory.until(mark)
        self._took(memory)
        with self.table.locked():
            for ticket in self.tickets:
                if ticket.stage is Stage.CONTRIBUTED:
                    self.table.withdraw(ticket.seq, self.me)
                    ticket.stage, ticket.spot = Stage.PENDING, None
        return ended

    def _claim(self, ticket: DeviceTicket) -> Way:
        return self.table.claim(ticket.seq, ticket.tensor.nbytes, _code(ticket.op))

    def _put(self, site: Site, pool: Pool, ticket: DeviceTicket) -> Optional[bool]:
        """Whether this rank is the last one; None: not now."""
        with self.table.locked():
            if self._claim(ticket) not in (Way.OPEN, Way.DEVICE):
                return None
            last = self.is_last(ticket.seq)
        ticket.spot = pool.take(ticket.tensor.nbytes, lambda: self._is_free(ticket))
        site.memory.after(ticket.mark)
        if not last:  # the last one's part is read where it lies
            site.tensor(site.row, ticket.spot, ticket.tensor).copy_(ticket.tensor.view(-1))
        return last

    def _publish(self, put: List[DeviceTicket]) -> List[DeviceTicket]:
        last: List[DeviceTicket] = []
        with self.table.locked():
            for ticket in put:
                if self._claim(ticket) not in (Way.OPEN, Way.DEVICE):
                    break  # somebody has mailed it meanwhile
                assert ticket.spot is not None
                ticket.stage = Stage.CONTRIBUTED
                if self.table.contribute(ticket.seq, self.me, ticket.spot) == len(self.ranks):
                    last.append(ticket)
        return last

    def _combine(self, site: Site, last: List[DeviceTicket]) -> None:
        if not last:
            return
        with site.memory.queue():
            for ticket in last:
                flat = ticket.tensor.view(-1)
                parts = [
                    flat
                    if member == self.me
                    else site.tensor(self._row_of(site, member), self.table.spot(ticket.seq, member), flat)
                    for member in range(len(self.ranks))
                ]
                assert ticket.spot is not None
                result = site.tensor(site.row, ticket.spot, flat)
                combine(parts, ticket.op.reduce, result)
                flat.copy_(result)
            site.memory.finish()
        with self.table.locked():
            for ticket in last:
                self.table.finish(ticket.seq, self.me)
                ticket.stage = Stage.DONE

    def _row_of(self, site: Site, member: int) -> int:
        return site.seat.ranks.index(self.ranks[member])

    def _is_free(self, ticket: DeviceTicket) -> bool:
        """Whether nobody reads a ticket's place any more: who combined leaves the result in its own."""
        table = self.table
        return ticket.over and (
            not table.is_of(ticket.seq) or table.root(ticket.seq) != self.me or table.over(ticket.seq)
        )


def _code(op: Op) -> int:
    return int(op.dtype) | int(op.reduce) << 8 | int(op.kind) << 16
