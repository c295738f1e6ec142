"""Brings snapshots of other regions into this region's archive. Only chunks that it lacks travel, and what
has come stays when the rest does not: the next attempt goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import httpx

from midstep.agent.errors import TransferError
from midstep.agent.transfer import locked
from midstep.model.job import SnapshotRef
from midstep.vault.errors import Busy, LeaseLost, SnapshotIncomplete, SnapshotMissing
from midstep.vault.snapshots import Snapshots

if TYPE_CHECKING:
    from midstep.vault.archive.archive import Archive
    from midstep.vault.archive.manifest import ArchivedSnapshot
    from midstep.vault.archive.shipping import Shipped

RETRY_S = 2.0
_READ_TIMEOUT_S = 30.0
_BUFFER_BYTES = 1 << 18
_TELL_S = 1.0
_BUSY_POLL_S = 0.2
_OK = 200

Tell = Callable[[int, int], None]  # bytes done, bytes left


class Carrier:
    """Its methods block: call them in threads."""

    def __init__(self, controller: str, token: str, region: str) -> None:
        self._controller, self._region = controller.rstrip("/"), region
        self._headers = {"Authorization": f"Bearer {token}"}

    def bring(
        self,
        source: SnapshotRef,
        vault: Snapshots,
        deadline_s: float,
        tell: Tell = lambda done, left: None,
        wanted: Callable[[], bool] = lambda: True,
        *,
        patient: bool = False,
    ) -> Shipped:
        """Have a snapshot in this region's archive; returns what travelled. Nodes of a region that want the
        same one wait for the first. ``wanted``: asked all the time; False ends it. ``patient``: the source
        may archive it when it has time, for nothing stands still.

        SnapshotMissing, SnapshotIncomplete, Damaged: it cannot be had, another one may; TransferError: the
        connection, or the time; other VaultErrors: this region's archive; OSError.
        """
        from midstep.vault.archive.manifest import decode
        from midstep.vault.archive.shipping import Shipped, StreamCut

        pace = _Pace(time.monotonic() + deadline_s, tell, wanted)
        name = source.snapshot_id
        with locked(vault.root / "locks" / f"{name}.lock", pace.end_s):
            if vault.is_raw(name) or vault.is_archived(name):
                return Shipped(again=True)
            try:
                with httpx.Client(headers=self._headers, timeout=_READ_TIMEOUT_S, trust_env=False) as client:
                    archived = decode(
                        self._manifest(client, source, pace, patient), f"the manifest of {name}"
                    )
                    return self._wait_and_receive(client, source.region, vault, archived, pace)
            except httpx.HTTPError as error:
                words = f"the transfer of {name} from {source.region} broke off"
                raise TransferError(f"{words}: {error or type(error).__name__}") from error
            except StreamCut as error:
                raise TransferError(
                    f"the transfer of {name} from {source.region} broke off: {error}"
                ) from error

    def _wait_and_receive(
        self, client: httpx.Client, region: str, vault: Snapshots, archived: ArchivedSnapshot, pace: _Pace
    ) -> Shipped:
        """A collector that is at work in this archive is waited for; one that took us for dead costs what has
        come: again."""
        while True:
            try:
                return self._receive(client, region, _archive(vault), archived, pace)
            except (Busy, LeaseLost):
                pace.check()
                time.sleep(_BUSY_POLL_S)

    def _receive(
        self, client: httpx.Client, region: str, archive: Archive, archived: ArchivedSnapshot, pace: _Pace
    ) -> Shipped:
        from midstep.vault.archive.shipping import join_ids, pieces, receive

        def fetch(ids: Sequence[bytes]) -> Generator[bytes]:
            url = f"{self._controller}/v1/internal/vault/{region}/chunks"
            with client.stream("POST", url, content=join_ids(ids)) as response:
                if response.status_code != _OK:
                    response.read()
                    raise TransferError(_answered("POST", url, response))
                yield from pieces(pace.keep(response.iter_raw(_BUFFER_BYTES)))

        return receive(archive, archived, fetch, pace.report)

    def _manifest(self, client: httpx.Client, source: SnapshotRef, pace: _Pace, patient: bool) -> bytes:
        """The archived manifest; one that is raw is archived first, which we wait for."""
        url = f"{self._controller}/v1/internal/vault/{source.region}/{source.snapshot_id}"
        while True:
            response = client.get(url, params={"patient": patient})
            match response.status_code:
                case 200:
                    return response.content
                case 202:
                    pace.check()
                case 404:
                    raise SnapshotMissing(_answered("GET", url, response))
                case 422:
                    raise SnapshotIncomplete(_answered("GET", url, response))
                case _:
                    raise TransferError(_answered("GET", url, response))


class _Pace:
    """The deadline, and how often progress is told."""

    def __init__(self, end_s: float, tell: Tell, wanted: Callable[[], bool]) -> None:
        self.end_s = end_s
        self._tell, self._wanted = tell, wanted
        self._told_s = 0.0
        self._bytes = 0

    def check(self) -> None:
        """TransferError: it takes too long, or nobody wants it any more."""
        if time.monotonic() > self.end_s:
            raise TransferError(f"the transfer was too slow: {self._bytes} bytes by its deadline")
        if not self._wanted():
            raise TransferError("the transfer was called off")

    def report(self, now: Shipped) -> None:
        self._bytes = now.sent_bytes
        at_s = time.monotonic()
        if at_s - self._told_s > _TELL_S:
            self._told_s = at_s
            self._tell(now.sent_bytes, now.left_bytes)

    def keep(self, stream: Iterator[bytes]) -> Generator[bytes]:
        """The same pieces, as long as there is time."""
        for piece in stream:
            self.check()
            yield piece


def _archive(vault: Snapshots) -> Archive:
    archive = vault.archive(create=True)
    assert archive is not None, "it was to be made"
    return archive


def _answered(verb: str, url: str, response: httpx.Response) -> str:
    return f"{verb} {url} was answered with {response.status_code}: {response.text[:300]}"
