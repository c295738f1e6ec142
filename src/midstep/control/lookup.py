"""Which job a user means: an id, the unique beginning of one, or a name (then the newest job of that
name)."""

from __future__ import annotations

from collections.abc import Mapping

from midstep.control.errors import Rejected
from midstep.engine.record import JobRecord

_SHOWN = 5


def find(records: Mapping[str, JobRecord], asked: str) -> JobRecord:
    """Raises Rejected: there is none, or the beginning of an id fits several."""
    if asked in records:
        return _here(records[asked])
    here = [record for record in records.values() if not record.away]
    named = [record for record in here if record.spec.name and record.spec.name == asked]
    if named:
        return max(named, key=lambda record: (record.submitted_s, record.job_id))
    begin = sorted(job_id for job_id in records if asked and _begins(job_id, asked))
    if len(begin) == 1:
        return _here(records[begin[0]])
    if begin:
        some = ", ".join(begin[:_SHOWN]) + (", ..." if len(begin) > _SHOWN else "")
        raise Rejected(409, "ambiguous_job", f"{asked!r} fits {len(begin)} jobs", some, "give more of the id")
    raise Rejected(404, "no_such_job", f"there is no job {asked!r}", "", "`midstep ps --all` lists the jobs")


def _here(record: JobRecord) -> JobRecord:
    if not record.away:
        return record
    words = f"job {record.job_id} is in region {record.away} now"
    raise Rejected(409, "is_elsewhere", words, "", "ask the fleet's global controller, or that region's")


def _begins(job_id: str, asked: str) -> bool:
    """With or without the letter in front."""
    return job_id.startswith(asked) or job_id.partition("-")[2].startswith(asked)
