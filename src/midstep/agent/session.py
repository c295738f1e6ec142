"""The agent's one connection: it dials the controller, says who it is, takes what is wanted, and says what
there is.

The controller may be away at any time: the ranks do not care, and the session is tried again for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from midstep.agent.config import AgentConfig
from midstep.agent.contact import now_s
from midstep.agent.errors import SessionRefused
from midstep.agent.node import Node
from midstep.wire.agent import (
    FROM_AGENT,
    TO_AGENT,
    Desired,
    Hello,
    LogChunk,
    Measured,
    Refused,
    Report,
    Welcome,
)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 10.0  # a session that lasted so long begins with the first pause again
_LOG_POLL_S = 0.2
_MAX_MESSAGE_BYTES = 256 << 20  # a Desired carries whole stores
_log = logging.getLogger(__name__)


async def keep_session(config: AgentConfig, node: Node) -> None:
    """Sessions, one after the other, for ever; raises SessionRefused when the controller does not want this
    agent."""
    pause_s = _FIRST_PAUSE_S
    while True:
        begun_s = time.monotonic()
        try:
            await _one_session(config, node)
        except (
            OSError,
            ConnectionClosed,
            InvalidHandshake,
            InvalidMessage,
            TimeoutError,
            ValidationError,
        ) as error:
            if isinstance(error, ConnectionRefusedError):
                node.contact.made(now_s())
            _log.info("no session with %s: %s", config.controller, error or type(error).__name__)
        finally:
            node.farewell()
        pause_s = (
            _FIRST_PAUSE_S if time.monotonic() - begun_s > _STEADY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
        )
        await asyncio.sleep(pause_s)


def url_of(controller: str) -> str:
    """Where agents dial in."""
    scheme, _, rest = controller.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/v1/agents"


async def _one_session(config: AgentConfig, node: Node) -> None:
    headers = {"Authorization": f"Bearer {config.token}"}
    async with connect(
        url_of(config.controller), additional_headers=headers, max_size=_MAX_MESSAGE_BYTES, proxy=None
    ) as connection:
        asked_s = now_s()
        await _send(connection, Hello(config.node, config.token))
        match TO_AGENT.validate_json(await connection.recv()):
            case Welcome() as welcome:
                node.contact.made(asked_s)
                node.welcome(welcome)
            case Refused(message):
                raise SessionRefused(message)
            case Desired():
                raise InvalidMessage("the controller's first message was no answer to Hello")
        _log.info("session with controller %s", welcome.controller)
        speaking = asyncio.create_task(_speak(connection, node, welcome.heartbeat_s))
        listening = asyncio.create_task(_listen(connection, node))
        feeling = asyncio.create_task(_feel(connection, node))
        try:
            tasks = (speaking, listening, feeling)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (speaking, listening, feeling):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


async def _listen(connection: ClientConnection, node: Node) -> None:
    async for raw in connection:
        match TO_AGENT.validate_json(raw):
            case Desired() as desired:
                node.take(desired)
            case Refused(message):
                raise SessionRefused(message)
            case Welcome() as welcome:
                node.welcome(welcome)


async def _feel(connection: ClientConnection, node: Node) -> None:
    """Ask for signs of life, and note for which instant each holds."""
    while True:
        asked_s = now_s()
        limit_s = node.contact.fence_s
        await asyncio.wait_for(await connection.ping(), limit_s)
        node.contact.made(asked_s)
        await asyncio.sleep(node.contact.poll_s)


async def _speak(connection: ClientConnection, node: Node, heartbeat_s: float) -> None:
    """Log bytes first, then the report, so that an exit is never said before the last words."""
    said: Report | None = None
    said_s = 0.0
    while True:
        node.changed.clear()
        node.anchor_logs()
        sent = False
        for chunk in node.logs.chunks():
            await _send(connection, chunk)
            sent = True
        if usage := node.usage():
            await _send(connection, Measured(usage))
            node.sent(usage)
        report = node.report()
        if report != said or time.monotonic() - said_s > heartbeat_s:
            await _send(connection, report)
            said, said_s = report, time.monotonic()
        if not sent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(node.changed.wait(), _LOG_POLL_S)


async def _send(connection: ClientConnection, message: Hello | Report | LogChunk | Measured) -> None:
    await connection.send(FROM_AGENT.dump_json(message).decode())
