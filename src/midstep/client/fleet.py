"""The client: everything that `wire/api.py` offers, typed. Every method may raise any ClientError.

with FleetClient.of_state() as fleet:
    job = fleet.submit(JobRequest(command=("python", "train.py"), devices=2))
    job = fleet.wait(job.job_id, lambda j: j.state in ENDED)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import httpx

from midstep.client.errors import NotFound, WaitTimeout
from midstep.client.http import Transport, no_answer
from midstep.client.locate import Address, locate
from midstep.client.schedule import ScheduleCalls
from midstep.client.types import (
    EventView,
    Health,
    JobRequest,
    JobView,
    LogView,
    MetricsView,
    MigrateRequest,
    NodeView,
    ResizeRequest,
)

POLL_S = 0.2
UPLOAD_TIMEOUT_S = 600.0


class FleetClient(ScheduleCalls):
    """A fleet, from outside."""

    def __init__(self, address: Address, timeout_s: float = 30.0, patience_s: float = 0.0) -> None:
        self.address = address
        self._transport = Transport(address, timeout_s, patience_s)

    @classmethod
    def of_state(cls, state: Path | None = None, timeout_s: float = 30.0, patience_s: float = 0.0) -> Self:
        """The fleet of a state folder; None: the default one."""
        return cls(locate(state), timeout_s, patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._transport.close()

    @property
    def cut_off(self) -> str:
        """Regions that the fleet's global controller could not reach when it answered last; '': none."""
        return self._transport.cut_off

    def be_patient(self, seconds: float) -> None:
        """From now on wait this long for a controller that does not answer, as while it restarts."""
        self._transport.patience_s = seconds

    def health(self) -> Health:
        """The controller is up, and so many nodes are connected."""
        return self._transport.get("/v1/health", Health)

    def submit(self, request: JobRequest) -> JobView:
        """Hand in a job."""
        return self._transport.post("/v1/jobs", JobView, request)

    def jobs(self, state: str | None = None) -> list[JobView]:
        """All jobs, or those in one state."""
        return self._transport.get("/v1/jobs", list[JobView], state=state)

    def job(self, job: str) -> JobView:
        """One job: by id, unique beginning of an id, or name."""
        return self._transport.get(_job(job), JobView)

    def suspend(self, job: str) -> JobView:
        """Cut it, save it, free its devices."""
        return self._transport.post(f"{_job(job)}/suspend", JobView)

    def resume(self, job: str) -> JobView:
        """Go on from its snapshot."""
        return self._transport.post(f"{_job(job)}/resume", JobView)

    def checkpoint(self, job: str) -> JobView:
        """Save it now; it goes on."""
        return self._transport.post(f"{_job(job)}/checkpoint", JobView)

    def migrate(self, job: str, to: str, copy_ahead: bool = True) -> JobView:
        """Move it to a node or region; to another region, after most of it was copied while it runs."""
        return self._transport.post(f"{_job(job)}/migrate", JobView, MigrateRequest(to, copy_ahead))

    def resize(self, job: str, devices: int | None, to: str | None = None) -> JobView:
        """Let it go on with another number of devices, None: as many as the scheduler sees fit; at a node or
        in a region, if one is given."""
        return self._transport.post(f"{_job(job)}/resize", JobView, ResizeRequest(devices, to))

    def cancel(self, job: str) -> JobView:
        """End it for good."""
        return self._transport.post(f"{_job(job)}/cancel", JobView)

    def logs(self, job: str, rank: int = 0, offset: int = 0, limit: int | None = None) -> LogView:
        """A piece of a rank's output."""
        return self._transport.get(f"{_job(job)}/logs", LogView, rank=rank, offset=offset, limit=limit)

    def metrics(self, job: str) -> MetricsView:
        """What one job does with its devices."""
        return self._transport.get(f"{_job(job)}/metrics", MetricsView)

    def all_metrics(self) -> list[MetricsView]:
        """The same of all jobs that have devices, without their history."""
        return self._transport.get("/v1/metrics", list[MetricsView])

    def nodes(self) -> list[NodeView]:
        """All nodes."""
        return self._transport.get("/v1/nodes", list[NodeView])

    def events(self, job: str | None = None, after: int = 0, limit: int | None = None) -> list[EventView]:
        """What happened after event number ``after``, oldest first."""
        return self._transport.get("/v1/events", list[EventView], job=job, after=after, limit=limit)

    def upload(self, archive: IO[bytes], nbytes: int, progress: Callable[[int], None] | None = None) -> str:
        """Send a work directory's archive; answers its name. ``progress`` hears the bytes sent so far."""
        headers = {"Content-Length": str(nbytes), "Content-Type": "application/gzip"}
        answer: dict[str, str] = self._transport.post(
            "/v1/blobs",
            dict[str, str],
            content=_pieces(archive, progress),
            headers=headers,
            timeout=UPLOAD_TIMEOUT_S,
        )
        return answer["blob"]

    @contextmanager
    def files(self, job: str) -> Generator[Iterator[bytes]]:
        """A job's work directory as the pieces of a tar."""
        try:
            with self._transport.stream(f"{_job(job)}/files") as response:
                yield self._transport.expect(response).iter_bytes(1 << 18)
        except httpx.HTTPError as error:
            raise no_answer(self.address, error) from None

    def wait(
        self,
        job: str,
        done: Callable[[JobView], bool],
        timeout_s: float | None = None,
        watch: Callable[[JobView], None] = lambda _: None,
    ) -> JobView:
        """Poll a job until ``done``; ``watch`` sees every poll. WaitTimeout: not within ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            view = self.job(job)
            watch(view)
            if done(view):
                return view
            if deadline is not None and time.monotonic() > deadline:
                message = f"job {view.name or view.job_id} is still {view.state} after {timeout_s:g} s"
                raise WaitTimeout(f"{message} ({view.reason})" if view.reason else message)
            time.sleep(POLL_S)


def _job(job: str) -> str:
    if not job or "/" in job or job in (".", ".."):  # nobody can be called so, and the path would be another
        raise NotFound(f"there is no job {job!r}", "`midstep ps --all` lists the jobs", "no_such_job")
    return f"/v1/jobs/{quote(job, safe='')}"


def _pieces(archive: IO[bytes], progress: Callable[[int], None] | None) -> Iterator[bytes]:
    sent = 0
    while piece := archive.read(1 << 18):
        yield piece
        sent += len(piece)
        if progress is not None:
            progress(sent)
