"""The controllers of the regions, as seen from above: what they told last, and how to ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from midstep.control.between.relay import Passing, cut_off, opened, problem_of
from midstep.control.errors import Rejected
from midstep.env import Clock
from midstep.wire.api import JobView
from midstep.wire.between import ClusterTold, JobTold, RegionTold

T = TypeVar("T")
TELL_EVERY_S = 0.5
LIST_EVERY_S, LIST_TIMEOUT_S = 10.0, 5.0
_MANY = 5000  # of more jobs only those are known that somebody listed
PATIENCE_S = 10.0  # a controller that is only being started again is waited for
_RETRY_S = 0.2
_TIMEOUT = httpx.Timeout(30.0, connect=3.0)
_TELL_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_adapter = cache(TypeAdapter[Any])


class Member:
    """One region's controller. Requests raise Rejected: what it says, or 503 where it does not answer."""

    def __init__(self, name: str, url: str, token: str, clock: Clock) -> None:
        self.name, self._clock = name, clock
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False)
        self.told: RegionTold | None = None
        self.before: tuple[ClusterTold, ...] = ()  # what it told of its clusters the time before
        self.jobs: dict[str, JobTold] = {}
        self.moving: list[JobTold] = []  # of those, the ones on their way, or of which something is left
        self.views: list[JobView] = []  # as last listed
        self._listening = asyncio.Lock()  # two answers in the wrong order would leave what is old
        self._silent_s: float | None = clock.monotonic_s()  # since when; None: it answers
        self.news: Callable[[], None] = lambda: None

    @property
    def reachable(self) -> bool:
        """It answered the last time."""
        return self._silent_s is None

    @property
    def clusters(self) -> tuple[ClusterTold, ...]:
        """As it told last."""
        return self.told.clusters if self.told is not None else ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of its nodes, as it told last."""
        return self.told.nodes if self.told is not None else ()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def listen(self) -> None:
        """Until cancelled."""
        due_s = self._clock.monotonic_s() + LIST_EVERY_S
        while True:
            await self.refresh()
            if self.reachable and self._clock.monotonic_s() >= due_s and len(self.jobs) <= _MANY:
                await self._list()
                due_s = self._clock.monotonic_s() + LIST_EVERY_S
            await self._clock.sleep(TELL_EVERY_S)

    async def _list(self) -> None:
        """What is shown of its jobs should it be cut off."""
        with suppress(Rejected, ValidationError):
            self.views = await self.ask("GET", "/v1/jobs", list[JobView])

    async def refresh(self) -> None:
        """Be told what there is now."""
        async with self._listening:
            await self._refresh()

    async def _refresh(self) -> None:
        seen = self.told.serial if self.told is not None else ""
        try:
            response = await self._http.get("/v1/internal/told", params={"seen": seen}, timeout=_TELL_TIMEOUT)
            response.raise_for_status()
            told: RegionTold = _adapter(RegionTold).validate_json(response.content)
        except (httpx.HTTPError, ValidationError):
            if self._silent_s is None:
                self._silent_s = self._clock.monotonic_s()
                self.news()
            return
        self.before = self.clusters
        self._silent_s, self.told = None, told
        if told.jobs is not None:
            self.jobs = {job.job_id: job for job in told.jobs}
            self.moving = [job for job in told.jobs if (job.leaving or job.away) and not job.over]
        self.news()

    async def ask(self, method: str, path: str, kind: type[T] | Any, body: object = None, **more: Any) -> Any:
        """One request with a JSON answer. ``body``: one of the wire's dataclasses."""
        if body is not None:
            more["json"] = _adapter(type(body)).dump_python(body, mode="json")
        response = await self.request(method, path, **more)
        return _adapter(kind).validate_json(response.content) if kind is not None else None

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request; tried again for a while if it did not get there at all. One that has been silent for
        longer is not waited for."""
        if not self._may_be_back():
            raise cut_off(self.name, TimeoutError("it does not answer"))
        while True:
            try:
                response = await self._http.request(method, path, **more)
                break
            except httpx.HTTPError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                broken = isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)
                if not self._may_be_back() or not (unsent or (broken and method == "GET")):
                    raise cut_off(self.name, error, sent=not unsent) from None
                await self._clock.sleep(_RETRY_S)
        if response.is_success:
            return response
        raise problem_of(response, self.name)

    async def stream(self, method: str, path: str, **more: Any) -> Passing:
        """One request whose answer is passed on as it comes."""
        if not self._may_be_back():
            raise cut_off(self.name, TimeoutError("it does not answer"))
        return await opened(self._http, self.name, method, path, **more)

    def _may_be_back(self) -> bool:
        return self._silent_s is None or self._clock.monotonic_s() - self._silent_s < PATIENCE_S


class Members:
    """All of them, by region."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.by_name = dict(sorted(members.items()))
        self.news = asyncio.Event()
        for member in self.by_name.values():
            member.news = self.news.set

    def __iter__(self) -> Iterator[Member]:
        return iter(self.by_name.values())

    @property
    def reachable(self) -> list[Member]:
        """Those that answer."""
        return [member for member in self.by_name.values() if member.reachable]

    @property
    def cut_off(self) -> tuple[str, ...]:
        """Regions that do not answer."""
        return tuple(name for name, member in self.by_name.items() if not member.reachable)

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes."""
        return sorted(node for member in self.by_name.values() for node in member.nodes)

    def member(self, region: str) -> Member:
        """Raises Rejected: there is no such region."""
        if region in self.by_name:
            return self.by_name[region]
        known = f"there are {', '.join(self.by_name)}"
        raise Rejected(422, "no_such_place", f"there is no region {region!r}", known)

    def of_node(self, node: str) -> Member | None:
        """Where a node is."""
        return next((one for one in self.by_name.values() if node in one.nodes), None)

    async def refresh(self) -> None:
        """Be told by all what there is now."""
        await asyncio.gather(*(member.refresh() for member in self.by_name.values()))
