"""The agents' connections: desired state down, reports and logs up. An agent that says nothing for a while is
lost."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from pydantic import ValidationError

from midstep.control.assignments import assignment
from midstep.control.between.errands import Errands
from midstep.control.errors import AgentRefused, StateError
from midstep.control.fleet import Fleet
from midstep.control.history import History
from midstep.control.logs import Logs
from midstep.control.service import Service
from midstep.engine import ahead
from midstep.engine.effects import Log
from midstep.engine.events import NodeBack, NodeLost, NodeReported, SnapshotCopied
from midstep.engine.orders import Order, desired
from midstep.engine.record import JobRecord
from midstep.env import Clock
from midstep.wire.agent import (
    FROM_AGENT,
    PROTOCOL,
    TO_AGENT,
    CopyOrder,
    Desired,
    Hello,
    LogChunk,
    Measured,
    Refused,
    Report,
    Welcome,
)

LOG = logging.getLogger("midstep.control")
HELLO_TIMEOUT_S = 10.0


class LinkClosed(Exception):
    """The other side is gone."""


class Link(Protocol):
    """One agent's connection. ``send`` and ``receive`` raise LinkClosed."""

    async def send(self, text: str) -> None: ...
    async def receive(self) -> str: ...
    async def close(self) -> None: ...


class Session:
    """One connected agent."""

    def __init__(self, link: Link, node: str, now_s: float) -> None:
        self.link, self.node = link, node
        self.heard_s = now_s
        self.due = asyncio.Event()
        self.sent: tuple[dict[str, Order], tuple[CopyOrder, ...]] | None = None


class Sessions:
    """All connected agents."""

    def __init__(
        self,
        service: Service,
        fleet: Fleet,
        logs: Logs,
        history: History,
        clock: Clock,
        token: str,
        welcome: Welcome,
    ) -> None:
        self._service, self._fleet, self._logs, self._history = service, fleet, logs, history
        self._clock, self._token, self._welcome = clock, token, welcome
        self._lost_after_s = 4 * welcome.heartbeat_s + 2
        self._sessions: dict[str, Session] = {}
        self.on_usage: Callable[[str, Measured], None] = lambda node, measured: None
        self.errands = Errands(fleet, clock)
        self.errands.changed = self._remind
        service.on_change.append(self._changed)

    async def serve(self, link: Link) -> None:
        """One connection, from hello to the end."""
        try:
            session = await self._welcomed(link)
        except AgentRefused as refusal:
            LOG.warning("an agent was refused: %s", refusal)
            await link.send(TO_AGENT.dump_json(Refused(str(refusal))).decode())
            await link.close()
            return
        sender = asyncio.create_task(self._send_desired(session))
        try:
            while True:
                await self._hear(session, await link.receive())
        except LinkClosed:
            pass
        finally:
            sender.cancel()
            self._close(session, "its connection closed")

    async def watch(self) -> None:
        """Drop agents that have gone silent. Until cancelled."""
        while True:
            await self._clock.sleep(self._welcome.heartbeat_s / 2)
            for session in list(self._sessions.values()):
                silent_s = self._clock.monotonic_s() - session.heard_s
                if silent_s > self._lost_after_s:
                    self._close(session, f"it said nothing for {silent_s:.0f} s")
                    await session.link.close()

    async def _welcomed(self, link: Link) -> Session:
        try:
            text = await asyncio.wait_for(link.receive(), HELLO_TIMEOUT_S)
            hello = FROM_AGENT.validate_json(text)
        except (ValidationError, TimeoutError):
            raise AgentRefused(
                f"no hello of protocol {PROTOCOL} came: is the agent of another version?"
            ) from None
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL:
            raise AgentRefused(
                f"this controller speaks protocol {PROTOCOL}: install the same version on the node"
            )
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            raise AgentRefused(f"node {hello.node.name} has another token than this fleet")
        name = hello.node.name
        self._fleet.join(hello.node, self._service.now_s())
        before = self._sessions.pop(name, None)
        session = self._sessions[name] = Session(link, name, self._clock.monotonic_s())
        if before is not None:
            await before.link.close()
        await link.send(TO_AGENT.dump_json(self._welcome).decode())
        LOG.info("node %s connected", name)
        self._history.note(Log("node", "connected", name))
        for record in list(self._service.records.values()):
            if name in record.lost:
                self._service.tell(record.job_id, NodeBack(name))
        session.due.set()
        self._service.plan_soon()
        return session

    def _close(self, session: Session, why: str) -> None:
        if self._sessions.get(session.node) is not session:
            return  # replaced by a newer connection of the same node, or closed already
        del self._sessions[session.node]
        LOG.warning("node %s is not connected: %s", session.node, why)
        try:
            self._fleet.leave(session.node)
            self._history.note(Log("node", f"not connected: {why}", session.node))
        except StateError as error:
            LOG.error("%s", error)
        for record in list(self._service.records.values()):
            if session.node in _nodes_of(record):
                self._service.tell(record.job_id, NodeLost(session.node))
        self._service.plan_soon()

    async def _hear(self, session: Session, text: str) -> None:
        session.heard_s = self._clock.monotonic_s()
        self._fleet.seen(session.node, self._service.now_s())
        try:
            message = FROM_AGENT.validate_json(text)
        except ValidationError as error:
            LOG.warning("node %s sent what cannot be read: %s", session.node, error.errors()[0]["msg"])
            return
        if self._sessions.get(session.node) is not session:
            return
        match message:
            case Report(jobs, copies):
                for job in jobs:
                    if job.job_id in self._service.records:
                        self._service.tell(job.job_id, NodeReported(session.node, job))
                for copy in copies:
                    self.errands.heard(session.node, copy)
                    if copy.job_id in self._service.records:
                        self._service.tell(copy.job_id, SnapshotCopied(session.node, copy))
            case LogChunk():
                self._take_log(session, message)
            case Measured() as measured:
                self.on_usage(session.node, measured)
            case Hello():
                LOG.warning("node %s said hello twice", session.node)

    def _take_log(self, session: Session, chunk: LogChunk) -> None:
        record = self._service.records.get(chunk.job_id)
        if record is None or not _may_log(record, session.node, chunk.rank):
            return
        try:
            data = base64.b64decode(chunk.data, validate=True)
            taken = self._logs.write(chunk.job_id, chunk.rank, chunk.offset, data)
        except (StateError, binascii.Error) as error:
            LOG.warning("log of job %s: %s", chunk.job_id, error)
            taken = False
        if taken:
            self._history.wake()
        else:  # the agent learns from the assignment what is here, and sends from there
            session.sent = None
            session.due.set()

    def _changed(self, before: JobRecord | None, after: JobRecord) -> None:
        nodes = _nodes_of(after) | (_nodes_of(before) if before else set[str]())
        for node in sorted(nodes):
            self._remind(node)

    def _remind(self, node: str) -> None:
        """It shall do something else now."""
        if node in self._sessions:
            self._sessions[node].due.set()

    async def _send_desired(self, session: Session) -> None:
        try:
            while True:
                await session.due.wait()
                session.due.clear()
                orders, copies = self._orders(session.node), self._copies(session.node)
                if (orders, copies) != session.sent:
                    session.sent = (orders, copies)
                    wanted = self._desired(orders.values(), copies)
                    await session.link.send(TO_AGENT.dump_json(wanted).decode())
        except LinkClosed:
            pass

    def _orders(self, node: str) -> dict[str, Order]:
        records = self._service.records
        orders = ((job_id, desired(record).get(node)) for job_id, record in sorted(records.items()))
        return {job_id: order for job_id, order in orders if order is not None}

    def _copies(self, node: str) -> tuple[CopyOrder, ...]:
        found = (ahead.wanted(record).get(node) for _, record in sorted(self._service.records.items()))
        own = tuple(CopyOrder(copy.job_id, copy.source) for copy in found if copy is not None)
        named = {order.source.snapshot_id for order in own}
        return (*own, *(order for order in self.errands.of(node) if order.source.snapshot_id not in named))

    def _desired(self, orders: Iterable[Order], copies: tuple[CopyOrder, ...]) -> Desired:
        nodes = self._fleet.known
        assignments = [
            assignment(
                order, nodes, {r.rank: self._logs.size(order.job_id, r.rank) for r in order.place.ranks}
            )
            for order in orders
        ]
        return Desired(tuple(assignments), copies)


def _nodes_of(record: JobRecord) -> set[str]:
    places = [place.node for p in (record.placement, record.next, record.back) if p for place in p.nodes]
    return {*places, *record.leftovers}


def _may_log(record: JobRecord, node: str, rank: int) -> bool:
    """Whether the rank's output may come from that node: where it is, or (late lines) where it was last."""
    placement = record.placement or record.left
    return placement is not None and rank in range(record.spec.world_size) and placement.node_of(rank) == node
