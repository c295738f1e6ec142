"""Snapshots that this node brings into its region while their jobs run elsewhere. Told by levels: what is not
ordered any more is dropped; what has come stays in the region's archive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from midstep.agent.carrier import RETRY_S, Carrier
from midstep.agent.deadlines import deadline_s
from midstep.agent.errors import TransferError
from midstep.model.job import SnapshotRef
from midstep.model.phase import CopyState, CopyStatus
from midstep.vault.errors import Busy, LeaseLost, VaultError
from midstep.vault.snapshots import Snapshots
from midstep.wire.agent import CopyOrder

if TYPE_CHECKING:
    from midstep.vault.archive.shipping import Shipped

_log = logging.getLogger(__name__)


class Copies:
    """``changed`` is called whenever `report` says something new."""

    def __init__(self, carrier: Carrier, vault: Snapshots, changed: Callable[[], None]) -> None:
        self._carrier, self._vault, self._changed = carrier, vault, changed
        self._status: dict[str, CopyStatus] = {}  # by snapshot
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, orders: Sequence[CopyOrder]) -> None:
        """These, and no others."""
        named = {order.source.snapshot_id for order in orders}
        for name in set(self._status) - named:
            del self._status[name]
        for order in orders:
            name = order.source.snapshot_id
            if name not in self._status:
                self._status[name] = CopyStatus(order.job_id, name)
                self._tasks[name] = asyncio.create_task(self._bring(order), name=f"copy-{name}")

    def report(self) -> tuple[CopyStatus, ...]:
        """Of all that are ordered, done ones included."""
        return tuple(self._status[name] for name in sorted(self._status))

    async def _bring(self, order: CopyOrder) -> None:
        """Until it is here, cannot be, or is not wanted any more. What breaks off goes on from there."""
        name = order.source.snapshot_id
        begun_s = time.monotonic()
        end_s = begun_s + deadline_s("transfer", order.source.nbytes)
        sent_bytes, loop = 0, asyncio.get_running_loop()

        def tell(done: int, left: int) -> None:
            loop.call_soon_threadsafe(self._told, name, sent_bytes + done, left)

        while name in self._status:
            try:
                done = await asyncio.to_thread(self._once, order.source, end_s, tell)
            except (TransferError, Busy, LeaseLost) as error:
                _log.info("copy of %s: %s", name, error)
                if time.monotonic() > end_s:
                    self._say(name, state=CopyState.FAILED, message=str(error))
                    return
                sent_bytes = self._status[name].done_bytes if name in self._status else 0
                await asyncio.sleep(RETRY_S)
            except (VaultError, OSError) as error:
                self._say(name, state=CopyState.FAILED, message=str(error))
                return
            except Exception as error:
                _log.exception("copy of %s", name)
                self._say(name, state=CopyState.FAILED, message=f"{type(error).__name__}: {error}")
                return
            else:
                took_s, travelled = time.monotonic() - begun_s, sent_bytes + done.sent_bytes
                sizes = {"done_bytes": travelled, "left_bytes": 0, "known_bytes": done.known_bytes}
                self._say(name, state=CopyState.DONE, duration_s=took_s, **sizes)
                return

    def _once(self, source: SnapshotRef, end_s: float, tell: Callable[[int, int], None]) -> Shipped:
        left_s = max(1.0, end_s - time.monotonic())
        wanted = lambda: source.snapshot_id in self._status  # noqa: E731
        return self._carrier.bring(source, self._vault, left_s, tell, wanted, patient=True)

    def _told(self, name: str, done_bytes: int, left_bytes: int) -> None:
        self._say(name, done_bytes=done_bytes, left_bytes=left_bytes)

    def _say(self, name: str, **news: object) -> None:
        if name in self._status:
            self._status[name] = replace(self._status[name], **news)  # pyright: ignore[reportArgumentType]
            self._changed()
