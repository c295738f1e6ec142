"""`WS /v1/agents`: an agent's connection for `control.sessions`."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from midstep.control.region import Region
from midstep.control.sessions import LinkClosed


class WebSocketLink:
    """A Starlette WebSocket as a `Link`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        """Raises LinkClosed."""
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise LinkClosed(str(error)) from error

    async def receive(self) -> str:
        """Raises LinkClosed."""
        try:
            return await self._socket.receive_text()
        except (WebSocketDisconnect, RuntimeError, KeyError) as error:
            raise LinkClosed(str(error)) from error

    async def close(self) -> None:
        """Harmless when it is closed already."""
        if self._socket.application_state is not WebSocketState.DISCONNECTED:
            with suppress(RuntimeError, OSError, WebSocketDisconnect):
                await self._socket.close()


def agent_routes(region: Region) -> APIRouter:
    """The route that agents dial. Their token is in the hello."""
    router = APIRouter()

    @router.websocket("/v1/agents")
    async def agents(socket: WebSocket) -> None:
        await socket.accept()
        with suppress(LinkClosed):
            await region.sessions.serve(WebSocketLink(socket))

    return router
