"""Before a running job is cut to go to another region: devices must be free there; and copy-ahead, as
`engine/ahead.py` does within one controller. The newest snapshot travels first, then checkpoints, as long as
each brings clearly less than the one before; then the job stands still.

Only a help: whatever goes wrong with it, the job goes without. Nothing is written down: after a restart it
begins anew, and what has come need not come again.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from midstep.control.errors import Rejected
from midstep.engine.ahead import enough
from midstep.env import Clock
from midstep.federation.members import Member
from midstep.model.job import SnapshotRef
from midstep.model.phase import CopyState, CopyStatus
from midstep.wire.agent import CopyOrder
from midstep.wire.api import CUT_OFF, JobView
from midstep.wire.between import CopiedNews, JobTold

_BASE_S, _SLOWEST_BYTES_PER_S = 180.0, 1e6  # a round that takes longer is given up
_LONGEST_S = 3600.0
_BEGUN_S = 10.0  # a checkpoint that was asked for is seen to be made, or is there


@dataclass(slots=True)
class _Copying:
    """How far one job's is. ``round_s``: since when this round goes on."""

    receiver: Member
    begun_s: float
    round_s: float
    rounds: int = 0
    source: SnapshotRef | None = None
    before: str = ""  # the snapshot copied last, or the newest when a checkpoint was asked for
    saving: bool = False
    sent_bytes: int = 0  # by the last round
    total_bytes: int = 0


class Copies:
    """All that are under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, _Copying] = {}

    async def forget(self, under_way: Collection[str]) -> None:
        """All others were called off, or have ended: what was brought for them is not wanted."""
        for job_id in [job_id for job_id in self._jobs if job_id not in under_way]:
            copying = self._jobs.pop(job_id)
            with suppress(Rejected):
                await self._drop(copying.receiver, copying, forget=True)

    async def tend(self, giver: Member, receiver: Member, job: JobTold) -> None:
        """One look at a job that is copied ahead. Raises Rejected."""
        now_s = self._clock.monotonic_s()
        copying = self._jobs.get(job.job_id)
        if copying is None or copying.receiver is not receiver:
            copying = self._jobs[job.job_id] = _Copying(receiver, now_s, now_s)
        await receiver.refresh()  # what was free a moment ago may not be any more
        if not has_room(receiver, job):
            copying.round_s = now_s
            return
        if not job.ahead:
            await self._end(giver, receiver, job, "")
            return
        nbytes = copying.source.nbytes if copying.source else 0
        if now_s - copying.round_s > _BASE_S + nbytes / _SLOWEST_BYTES_PER_S:
            await self._end(giver, receiver, job, "it took too long")
        elif copying.source is not None:
            await self._look(giver, receiver, job, copying)
        elif job.snapshot and job.snapshot_region == giver.name and job.snapshot != copying.before:
            copying.source = SnapshotRef(job.snapshot, job.snapshot_region, job.snapshot_bytes)
            copying.rounds, copying.round_s, copying.saving = copying.rounds + 1, now_s, False
            await self._look(giver, receiver, job, copying)
        elif copying.saving and not job.saves and now_s - copying.round_s > _BEGUN_S:
            await self._end(giver, receiver, job, "no checkpoint could be taken")
        elif not copying.saving:
            copying.before, copying.saving, copying.round_s = job.snapshot, True, now_s
            try:
                await giver.ask("POST", f"/v1/jobs/{job.job_id}/checkpoint", JobView)
            except Rejected as error:
                if error.problem.code in CUT_OFF:
                    raise
                if error.problem.code == "is_checkpointing":  # it was asked for before we were started
                    return
                await self._end(giver, receiver, job, f"no checkpoint could be taken: {error}")

    async def _look(self, giver: Member, receiver: Member, job: JobTold, copying: _Copying) -> None:
        assert copying.source is not None
        order = CopyOrder(job.job_id, copying.source)
        try:
            status: CopyStatus = await receiver.ask("POST", "/v1/internal/copies", CopyStatus, order)
        except Rejected as error:
            if error.problem.code in CUT_OFF:
                raise
            await self._end(giver, receiver, job, str(error))
            return
        if self._jobs.get(job.job_id) is not copying:  # it was called off while we asked
            await self._drop(receiver, copying, forget=True)
            return
        match status.state:
            case CopyState.COPYING:
                return
            case CopyState.FAILED:
                await self._end(giver, receiver, job, status.message)
            case CopyState.DONE:
                copying.total_bytes += status.done_bytes
                late = self._clock.monotonic_s() - copying.begun_s > _LONGEST_S
                if late or enough(copying.rounds, copying.sent_bytes, status):
                    await self._end(giver, receiver, job, "")
                    return
                copying.sent_bytes, copying.before = status.done_bytes, copying.source.snapshot_id
                await self._drop(receiver, copying)
                copying.source, copying.round_s = None, self._clock.monotonic_s()

    async def _end(self, giver: Member, receiver: Member, job: JobTold, why: str) -> None:
        copying = self._jobs.pop(job.job_id, None)
        if copying is None:  # it was called off meanwhile
            return
        news = CopiedNews(copying.rounds, copying.total_bytes, why)
        await giver.ask("POST", f"/v1/internal/jobs/{job.job_id}/copied", JobView, news)
        await self._drop(receiver, copying)
        await giver.refresh()  # or it would look as if it had still to be copied

    async def _drop(self, receiver: Member, copying: _Copying, *, forget: bool = False) -> None:
        if copying.source is not None and receiver.reachable:
            path, asked = f"/v1/internal/copies/{copying.source.snapshot_id}", {"forget": forget}
            await receiver.request("DELETE", path, params=asked)


def has_room(receiver: Member, job: JobTold) -> bool:
    """It would begin there at once, as far as is told. Where a node was named, that is left to the region."""
    fits = [one for one in receiver.clusters if not job.types or one.device_type in job.types]
    return bool(job.node) or any(one.free >= job.least for one in fits)
