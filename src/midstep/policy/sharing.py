"""Borrowing: what a project has beyond what it is due, others may take back. Which of its jobs that
concerns: the ones that rank last, as far as they go beyond."""

from __future__ import annotations

from collections.abc import Callable

from midstep.policy.ledger import Job
from midstep.policy.quota import Projects

Rerank = Callable[[Job, float], None]


class Borrowing:
    """Jobs of projects with a quota, by path. Looked at only where a project's use has changed."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects
        self._jobs: dict[str, dict[Job, None]] = {}

    def enter(self, job: Job) -> None:
        """One more."""
        for path in self._projects.bound(job.ask.project):
            self._jobs.setdefault(path, {})[job] = None
            self._projects.dirty[path] = None

    def leave(self, job: Job) -> None:
        """One less."""
        for path in self._projects.bound(job.ask.project):
            self._jobs.get(path, {}).pop(job, None)

    def settle(self, rerank: Rerank, now_s: float) -> None:
        """Say which jobs run on borrowed devices, or would; those whose answer changes are ranked anew."""
        if not self._projects.dirty:
            return
        dirty = list(self._projects.dirty)
        self._projects.dirty.clear()
        looked_at: dict[Job, None] = {}
        beyond: set[Job] = set()
        for path in dirty:
            over = self._beyond(path)
            looked_at.update(dict.fromkeys(self._jobs.get(path, ())))
            beyond |= over
        for job in looked_at:
            borrowed = job in beyond or self._elsewhere(job, dirty)
            if borrowed != job.borrowed:
                job.borrowed = borrowed
                rerank(job, now_s)

    def _beyond(self, path: str) -> set[Job]:
        quota = self._projects.quotas.get(path)
        if quota is None:
            return set()
        left, found = quota.devices, set[Job]()
        order = sorted(self._jobs.get(path, ()), key=lambda job: (not job.runs, job.submit_s, job.ask.job_id))
        for guaranteed in (True, False):
            for job in order:
                if bool(job.tier.guarantee) == guaranteed:
                    size = job.devices * job.ask.milli / 1000 if job.runs else job.size
                    left -= size
                    if left < -1e-9 and not guaranteed:
                        found.add(job)
        return found

    def _elsewhere(self, job: Job, dirty: list[str]) -> bool:
        """It goes beyond what another of its paths is due, one that has not changed."""
        others = [path for path in self._projects.bound(job.ask.project) if path not in dirty]
        return any(job in self._beyond(path) for path in others)
