"""Which region has a job: by what the regions told. Names are looked up as a region's controller does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from midstep.control.errors import Rejected
from midstep.control.lookup import pick
from midstep.federation.members import Member, Members
from midstep.wire.between import JobTold


@dataclass(frozen=True, slots=True)
class Place:
    """A job, and whose it is. One on its way is still shown by who gave it away."""

    member: Member
    job: JobTold


class Directory:
    """``members``: whose last word counts."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def all(self) -> dict[str, Place]:
        """Every job, by id."""
        found: dict[str, Place] = {}
        for place in self._places():
            known = found.get(place.job.job_id)
            if known is None or _rank(place.job) > _rank(known.job):
                found[place.job.job_id] = place
        return found

    def __contains__(self, job_id: object) -> bool:
        return any(job_id in member.jobs for member in self._members)

    def owner(self, job_id: str) -> Place | None:
        """One job, by its whole id."""
        there = [Place(member, member.jobs[job_id]) for member in self._members if job_id in member.jobs]
        return max(there, key=lambda place: _rank(place.job), default=None)

    async def find(self, asked: str) -> Place:
        """By id, the unique beginning of one, or name (then the newest). Raises Rejected: there is none, it
        could be several, or it may be where nobody answers."""
        try:
            return self._find(asked)
        except Rejected:
            await self._members.refresh()  # it may have come a moment ago
            return self._find(asked)

    def _find(self, asked: str) -> Place:
        if (place := self.owner(asked)) is not None:
            return place
        jobs = self.all()
        names = {job_id: (place.job.name, place.job.submitted_s) for job_id, place in jobs.items()}
        try:
            return jobs[pick(names, asked)]
        except Rejected as error:
            unknown = [name for name, member in self._members.by_name.items() if member.told is None]
            if error.problem.code != "no_such_job" or not unknown:
                raise
            words = f"there is no job {asked!r} in the regions that answer"
            where = f"{', '.join(unknown)} cannot be reached"
            raise Rejected(503, "region_cut_off", words, where) from None

    def _places(self) -> Iterator[Place]:
        for member in self._members:
            for job in member.jobs.values():
                yield Place(member, job)


def _rank(job: JobTold) -> tuple[int, bool]:
    """Who was given it last has it."""
    return (job.hops, not job.away)
