"""Borrowing: what a project has beyond what it is due, others may take back; what it has beyond its fair
share (`shares.py`), first. Which of its jobs that concerns: the ones that rank last, as far as they go
beyond."""

from __future__ import annotations

from collections.abc import Callable

from midstep.policy.ledger import NEVER, Job
from midstep.policy.quota import Projects
from midstep.policy.shares import chain

Rerank = Callable[[Job, float], None]


class Borrowing:
    """Jobs by path. Looked at only where a project's use has changed, and only if any project has a quota;
    fair shares once a tick. ``next_s``: when that is."""

    def __init__(self, projects: Projects, tick_s: float) -> None:
        self._projects, self._tick_s = projects, tick_s
        self._jobs: dict[str, dict[Job, None]] = {}
        self._beyond: dict[str, dict[Job, int]] = {}  # of a path, as `Job.borrowed`, where that is not 0
        self.next_s = 0.0 if projects.quotas else NEVER

    def enter(self, job: Job) -> None:
        """One more."""
        self._projects.want(job.ask.project, job.size)
        for path in chain(job.ask.project):
            self._jobs.setdefault(path, {})[job] = None
        if self._projects.quotas:
            job.borrowed = int(not self._projects.bound(job.ask.project))

    def leave(self, job: Job) -> None:
        """One less."""
        self._projects.want(job.ask.project, -job.size)
        for path in chain(job.ask.project):
            self._jobs[path].pop(job)
            self._beyond.get(path, {}).pop(job, None)
            if not self._jobs[path]:
                del self._jobs[path]

    def settle(self, rerank: Rerank, total: Callable[[], int], now_s: float) -> None:
        """Say which jobs run on borrowed devices, or would; those whose answer changes are ranked anew.
        ``total``: devices of the fleet."""
        projects = self._projects
        if now_s >= self.next_s:
            self._share(total())
            self.next_s = now_s + self._tick_s if projects.quotas else NEVER
        if not projects.dirty:
            return
        looked_at: dict[Job, None] = {}
        for path in projects.dirty:
            self._beyond[path] = self._levels(path)
            looked_at.update(dict.fromkeys(self._jobs.get(path, ())))
        projects.dirty.clear()
        for job in looked_at:
            borrowed = max(self._beyond.get(path, {}).get(job, 0) for path in chain(job.ask.project))
            if borrowed != job.borrowed:
                job.borrowed = borrowed
                rerank(job, now_s)

    def _share(self, total: int) -> None:
        """Fair shares anew. Those who have one, and no quota, are looked at only now."""
        projects = self._projects
        before, projects.fair = projects.fair, projects.fair_now(total)
        for path in sorted({*before, *projects.fair}):
            if path in projects.changed or before.get(path) != projects.fair.get(path):
                projects.dirty[path] = None
        projects.changed.clear()

    def _levels(self, path: str) -> dict[Job, int]:
        """Of the path's jobs that are not within what it is due: 1 within its fair share, 2 beyond that."""
        due, fair = self._projects.bounds(path)
        if self._projects.wants.get(path, 0.0) <= due:
            return {}
        jobs = self._jobs.get(path, {})
        used, found = 0.0, dict[Job, int]()
        for job in sorted(jobs, key=_turn):
            used += _size(job)
            if not job.tier.guarantee and used > due + 1e-9:
                found[job] = 1 if used <= fair + 1e-9 else 2
        return found


def _turn(job: Job) -> tuple[bool, bool, float, str]:
    return (not job.tier.guarantee, not job.runs, job.submit_s, job.ask.job_id)


def _size(job: Job) -> float:
    """Devices that it has; that it would need to start."""
    devices = job.devices if job.runs else min(job.ask.least, job.ask.devices)
    return devices * job.ask.milli / 1000
