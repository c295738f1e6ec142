"""Jobs on their way from region to region. Each round looks at what the regions told, and takes every step
that is due: what was done and not heard of is simply done again, so it does not matter who was killed."""

from __future__ import annotations

import asyncio
import logging

from midstep.control.errors import Rejected
from midstep.control.tasks import Tasks
from midstep.federation.ahead import Copies
from midstep.federation.directory import Directory, Place
from midstep.federation.members import Member, Members
from midstep.wire.api import JobView
from midstep.wire.between import HOPS, JobTold

LOG = logging.getLogger("midstep.federation")


class Handovers:
    """``copies``: what is copied ahead."""

    def __init__(self, members: Members, directory: Directory, copies: Copies) -> None:
        self._members, self._directory, self._copies = members, directory, copies
        self._busy: set[tuple[str, str]] = set()  # region, job
        self._tasks = Tasks()

    def tend(self) -> None:
        """Begin every step that is due."""
        copied = {job.job_id for member in self._members for job in member.moving if job.copies}
        self._tasks.spawn(self._copies.forget(copied))
        for member in self._members.reachable:
            for job in member.moving:
                key = (member.name, job.job_id)
                if key not in self._busy:
                    self._busy.add(key)
                    self._tasks.spawn(self._step(member, job))

    def stop(self) -> None:
        """Let go of everything: whoever comes next goes on."""
        self._tasks.cancel()

    async def _step(self, member: Member, job: JobTold) -> None:
        try:
            if job.copies:  # it runs on for as long as nobody answers where it goes
                if (receiver := self._members.member(job.leaving)).reachable:
                    await self._copies.tend(member, receiver, job)
            elif job.ready or job.away:
                await self._pass_on(member, job)
        except Rejected as error:  # again at the next round
            LOG.info("job %s: %s", job.job_id, error)
        except Exception as error:  # of this job alone
            LOG.error("job %s: %s", job.job_id, error, exc_info=error)
        finally:
            self._busy.discard((member.name, job.job_id))

    async def _pass_on(self, giver: Member, job: JobTold) -> None:
        """Whoever holds its newest passport gives it away; what nobody reads any more goes."""
        receiver = self._members.member(job.away or job.leaving)
        there = receiver.jobs.get(job.job_id)
        if job.away and there is not None and there.hops >= job.hops:
            if self._is_idle(giver, job):
                await giver.request("POST", f"{_path(job)}/not-needed", params={"hops": job.hops})
            return
        if not receiver.reachable:  # it stays where it is for as long
            return
        given = await giver.request("POST", f"{_path(job)}/hand-over")
        try:
            await self._give(giver, receiver, job, given.content)
        except Rejected as error:
            if error.problem.code != "turned_away":
                raise
            LOG.warning("region %s turned job %s away: %s", receiver.name, job.job_id, error.problem.detail)
            hops = {"hops": given.headers[HOPS]}
            await giver.ask("POST", f"{_path(job)}/turned-back", JobView, error.problem, params=hops)
        else:
            LOG.info("job %s went from %s to %s", job.job_id, giver.name, receiver.name)
        await asyncio.gather(giver.refresh(), receiver.refresh())

    async def _give(self, giver: Member, receiver: Member, job: JobTold, passport: bytes) -> JobView:
        path = "/v1/internal/jobs"
        await carry_logs(giver, receiver, job)
        try:
            return await receiver.ask("POST", path, JobView, content=passport)
        except Rejected as error:
            if error.problem.code != "no_blob":
                raise
        await carry_blob(giver, receiver, job.workdir_blob)
        return await receiver.ask("POST", path, JobView, content=passport)

    def _is_idle(self, giver: Member, job: JobTold) -> bool:
        """Whoever has the job now needs nothing of this region's vault: certain only if that one answers."""
        owner: Place | None = self._directory.owner(job.job_id)
        if owner is None or owner.job.away or not owner.member.reachable:
            return False
        return owner.job.over or giver.name not in owner.job.rests_on


async def carry_blob(giver: Member, receiver: Member, blob: str) -> None:
    """A job's work directory as it was submitted."""
    pieces = await giver.stream("GET", f"/v1/internal/blobs/{blob}")
    try:
        await receiver.request("POST", "/v1/blobs", content=pieces)
    finally:
        await pieces.close()


async def carry_logs(giver: Member, receiver: Member, job: JobTold) -> None:
    """What its ranks have written. When it runs again the agents send what is missing: if this comes to
    nothing, its user sees it then."""
    for rank in range(job.ranks):
        path, offset = f"{_path(job)}/logs/{rank}", 0
        try:
            while piece := (await giver.request("GET", path, params={"offset": offset})).content:
                await receiver.request("PUT", path, params={"offset": offset}, content=piece)
                offset += len(piece)
        except Rejected as error:
            LOG.info("the output of job %s: %s", job.job_id, error)
            return


def _path(job: JobTold) -> str:
    return f"/v1/internal/jobs/{job.job_id}"
