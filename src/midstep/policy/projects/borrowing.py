"""Borrowing: what a project has beyond what it is due, others may take back; what it has beyond its fair
share (`shares.py`), first. Which of its jobs that concerns: the ones that rank last, as far as they go
beyond; and of all jobs of its sub-projects those that go beyond there rank behind the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from midstep.policy.asks import MILLI
from midstep.policy.ledger import NEVER, Job
from midstep.policy.projects.line import Line, Turn
from midstep.policy.projects.quota import Projects
from midstep.policy.projects.shares import chain

Rerank = Callable[[Job, float], None]
_ERROR = 1e-6  # of sums, in thousandths of a device


@dataclass(slots=True)
class _Path:
    """A path's jobs, when it was last looked at; ``news``: those about which something has changed since.
    From ``due`` on they go beyond what it is due, from ``fair`` on beyond its fair share; None: nobody."""

    line: Line = field(default_factory=Line)
    news: set[Job] = field(default_factory=set[Job])
    due: Turn | None = None
    fair: Turn | None = None

    def level(self, job: Job) -> int:
        """0: it is within what the path is due; 1: within its fair share; 2: beyond that."""
        turn = self.line.turn(job)
        if turn is None or job.tier.guarantee or self.due is None or turn < self.due:
            return 0
        return 1 if self.fair is None or turn < self.fair else 2


class Borrowing:
    """Looked at only where a project's use has changed, and only if any project has a quota; fair shares once
    a tick. ``next_s``: when that is."""

    def __init__(self, projects: Projects, tick_s: float) -> None:
        self._projects, self._tick_s = projects, tick_s
        self._paths: dict[str, _Path] = {}
        self.next_s = 0.0 if projects.quotas else NEVER

    def enter(self, job: Job) -> None:
        """One more."""
        self._projects.want(job.ask.project, job.size)
        self.changed(job)
        if self._projects.quotas:
            job.borrowed = int(not self._projects.bound(job.ask.project))

    def used(self, job: Job, devices: int) -> None:
        """It has so many more (or fewer)."""
        self._projects.use(job.ask.project, devices * job.ask.milli / MILLI)
        self.changed(job)

    def changed(self, job: Job) -> None:
        """What it has is not what it had."""
        for name in chain(job.ask.project):
            path = self._paths.get(name)
            if path is None:
                path = self._paths[name] = _Path()
            path.news.add(job)

    def leave(self, job: Job) -> None:
        """One less."""
        self._projects.want(job.ask.project, -job.size)
        for name in chain(job.ask.project):
            path = self._paths[name]
            path.news.discard(job)
            path.line.remove(job)
            if not path.news and not len(path.line):
                del self._paths[name]

    def settle(self, rerank: Rerank, total: Callable[[], int], now_s: float) -> None:
        """Say which jobs run on borrowed devices, or would; those whose answer changes are ranked anew.
        ``total``: devices of the fleet."""
        projects = self._projects
        if now_s >= self.next_s:
            self._share(total())
            self.next_s = now_s + self._tick_s if projects.quotas else NEVER
        if not projects.dirty:
            return
        looked_at, depths = set[Job](), dict[int, dict[str, None]]()
        for name in projects.dirty:
            depths.setdefault(name.count("/"), {})[name] = None
        projects.dirty.clear()
        for depth in range(max(depths), -1, -1):  # sub-projects first: where their jobs stand depends on them
            for name in depths.get(depth, ()):
                if (path := self._paths.get(name)) is not None:
                    looked_at |= (found := self._look(name, path))
                    self._tell_above(name, found, depths)
        for job in sorted(looked_at, key=lambda job: job.ask.job_id):
            borrowed = max(self._level(job, name) for name in chain(job.ask.project))
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

    def _look(self, name: str, path: _Path) -> set[Job]:
        """Bring a path up to date: its jobs whose level may be another one now."""
        found, path.news = path.news, set()
        for job in found:
            path.line.put(job, self._turn(job, name), _size(job))
        within, shared = self._projects.bounds(name)
        due = path.line.reach(within * MILLI + _ERROR)
        fair = path.line.reach(shared * MILLI + _ERROR) if due is not None else None
        for before, now in ((path.due, due), (path.fair, fair)):
            if before != now:
                found.update(path.line.between(before, now))
        path.due, path.fair = due, fair
        return found

    def _tell_above(self, name: str, found: set[Job], depths: dict[int, dict[str, None]]) -> None:
        """They may stand elsewhere in the paths above; those with a quota are looked at in this turn, too."""
        above = [one for one in chain(name.removesuffix("/"))[: name.count("/")] if one != name]
        for one in above:
            self._paths[one].news |= found
            if one in self._projects.quotas:
                depths.setdefault(one.count("/"), {})[one] = None

    def _turn(self, job: Job, name: str) -> Turn:
        names = chain(job.ask.project)
        below = max((self._level(job, one) for one in names[names.index(name) + 1 :]), default=0)
        return (not job.tier.guarantee, below, not job.runs, job.submit_s, job.ask.job_id)

    def _level(self, job: Job, name: str) -> int:
        return self._paths[name].level(job)


def _size(job: Job) -> int:
    """Devices that it has; that it would need to start. In thousandths."""
    devices = job.devices if job.runs else min(job.ask.least, job.ask.devices)
    return devices * job.ask.milli
