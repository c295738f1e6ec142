"""Which job a user means: an id, the unique beginning of one, or a name (then the newest job of that
name)."""

from __future__ import annotations

from collections.abc import Mapping

from midstep.control.errors import Rejected
from midstep.engine.record import JobRecord

_SHOWN = 5


def find(records: Mapping[str, JobRecord], asked: str) -> JobRecord:
    """Raises Rejected: there is none, the beginning of an id fits several, or it was handed over."""
    if asked not in records:
        here = {job_id: record for job_id, record in records.items() if not record.away}
        names = {job_id: (record.spec.name, record.submitted_s) for job_id, record in here.items()}
        asked = pick(names, asked)
    record = records[asked]
    if record.away:
        words = f"job {record.job_id} is in region {record.away} now"
        raise Rejected(409, "is_elsewhere", words, "", "ask the fleet's global controller, or that region's")
    return record


def pick(names: Mapping[str, tuple[str, float]], asked: str) -> str:
    """The id of the job that is meant. ``names``: id -> name, time of submission. Raises Rejected."""
    if asked in names:
        return asked
    named = [(submitted_s, job_id) for job_id, (name, submitted_s) in names.items() if name and name == asked]
    if named:
        return max(named)[1]
    begin = sorted(job_id for job_id in names if asked and _begins(job_id, asked))
    if len(begin) == 1:
        return begin[0]
    if begin:
        some = ", ".join(begin[:_SHOWN]) + (", ..." if len(begin) > _SHOWN else "")
        raise Rejected(409, "ambiguous_job", f"{asked!r} fits {len(begin)} jobs", some, "give more of the id")
    raise Rejected(404, "no_such_job", f"there is no job {asked!r}", "", "`midstep ps --all` lists the jobs")


def _begins(job_id: str, asked: str) -> bool:
    """With or without the letter in front."""
    return job_id.startswith(asked) or job_id.partition("-")[2].startswith(asked)
