"""Which archived snapshots of a job stay. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

KEEP = 2  # complete snapshots of a job that lives: should the newest be damaged, there is one before it


@dataclass(frozen=True, slots=True)
class Rule:
    """For one job. ``keep``: so many of the newest; ``needed``: these whatever their age (a job's record, or
    another one's, names them)."""

    job_id: str
    keep: int = KEEP
    needed: tuple[str, ...] = ()


def doomed(rule: Rule, newest_last: Sequence[str], damaged: Collection[str] = ()) -> list[str]:
    """Of a job's archived snapshots those to forget, the oldest first. Damaged ones do not count towards
    those that are kept, and stay only when needed."""
    whole = [snapshot_id for snapshot_id in newest_last if snapshot_id not in damaged]
    kept = {*(whole[-rule.keep :] if rule.keep > 0 else ()), *rule.needed}
    return [snapshot_id for snapshot_id in newest_last if snapshot_id not in kept]
