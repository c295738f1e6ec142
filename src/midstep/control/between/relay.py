"""What an agent asks of another region's archive goes through the global controller, which reaches them
all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import Rejected
from midstep.control.vaults.shipping import NotYet
from midstep.wire.api import Problem

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_PIECE_BYTES = 1 << 18
_PROBLEM = TypeAdapter(Problem)
_NOT_YET = TypeAdapter(NotYet)


class Relay:
    """Its methods raise Rejected: 503 where the way there is cut, else what the other side says."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False)

    async def manifest(self, region: str, snapshot_id: str, *, patient: bool) -> bytes | NotYet:
        """As `Shipping.manifest`."""
        path = f"/v1/internal/vault/{region}/{snapshot_id}"
        try:
            response = await self._http.get(path, params={"patient": patient})
        except httpx.HTTPError as error:
            raise cut_off(region, error) from None
        if response.status_code == 202:
            return _NOT_YET.validate_json(response.content)
        if response.is_success:
            return response.content
        raise problem_of(response, region)

    async def chunks(self, region: str, body: bytes) -> Passing:
        """As `Shipping.chunks`: the stream is passed on as it comes."""
        path = f"/v1/internal/vault/{region}/chunks"
        return await opened(self._http, region, "POST", path, content=body)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()


class Passing(AsyncIterator[bytes]):
    """A body as it comes. A stream that breaks off ends early: who reads it sees that. ``close`` it if nobody
    has read it to its end."""

    def __init__(self, response: httpx.Response, stack: AsyncExitStack) -> None:
        self._pieces, self._stack = response.aiter_raw(_PIECE_BYTES), stack

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except (StopAsyncIteration, httpx.HTTPError):
            await self.close()
            raise StopAsyncIteration from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        await self._stack.aclose()


async def opened(http: httpx.AsyncClient, region: str, method: str, path: str, **more: Any) -> Passing:
    """A request whose answer is passed on. Raises Rejected: what the other side says, or that it does not."""
    stack = AsyncExitStack()
    try:
        response = await stack.enter_async_context(http.stream(method, path, **more))
        if not response.is_success:
            await response.aread()
    except httpx.HTTPError as error:
        await stack.aclose()
        raise cut_off(region, error) from None
    if not response.is_success:
        await stack.aclose()
        raise problem_of(response, region)
    return Passing(response, stack)


def cut_off(region: str, error: Exception, *, sent: bool = False) -> Rejected:
    """A region that does not answer. ``sent``: it may have heard what it was asked."""
    what = str(error) or type(error).__name__
    hint = "its controller goes on alone with what it has; try again when it can be reached"
    if sent:
        words = f"region {region} did not answer; what was asked may have been done"
        return Rejected(503, "region_silent", words, what, hint)
    return Rejected(503, "region_cut_off", f"region {region} cannot be reached", what, hint)


def problem_of(response: httpx.Response, region: str) -> Rejected:
    """What the other side says."""
    try:
        problem = _PROBLEM.validate_json(response.content)
    except ValidationError:
        words = f"region {region} answers {response.status_code}, but not as a controller does"
        return Rejected(502, "region_faulty", words)
    return Rejected(problem.status, problem.code, problem.title, problem.detail, problem.hint)
