"""The three things that can be done to a job, on the books and in the plan."""

from __future__ import annotations

from collections.abc import Callable

from midstep.policy.asks import Grant, Settings
from midstep.policy.causes import Cause
from midstep.policy.floor import Floor
from midstep.policy.ledger import NEVER, Job
from midstep.policy.plan import Plan, Resize, Start, Suspend
from midstep.policy.pool import Spots

Judge = Callable[[Job, float], tuple[int, float]]  # job, now -> its rank, and when to ask again
Used = Callable[[Job, int], None]  # a job has so many devices more (or fewer)


class Hand:
    """``plan``: what has been done since it was last taken. ``settles_s``: when the first of those is settled
    that were left alone because they have just been moved."""

    __slots__ = ("_judge", "_settings", "_used", "plan", "settles_s")

    def __init__(self, judge: Judge, used: Used, settings: Settings) -> None:
        self._judge, self._used, self._settings = judge, used, settings
        self.plan = Plan()
        self.settles_s = NEVER

    def settled(self, job: Job, now_s: float) -> bool:
        """It has not just been moved."""
        at_s = job.moved_s + self._settings.settle_s
        if at_s > now_s:
            self.settles_s = min(self.settles_s, at_s)
        return at_s <= now_s

    def can_move(self, job: Job, now_s: float) -> bool:
        """To other nodes, and its guarantee is kept all the same."""
        return job.can_lack(self._across_s(job), now_s)

    def start(
        self, job: Job, floor: Floor, sharing: int, spots: Spots, cause: Cause, now_s: float, slot: int = -1
    ) -> None:
        """A waiting job. The spots are free."""
        costs = self._settings.costs
        job.since_s = now_s
        if job.again:
            job.since_s += costs.resume_s + job.snapshot_bytes / costs.bytes_per_s
        job.slot = slot
        self._give(job, floor, sharing, spots, now_s)
        self.plan.actions.append(
            Start(job.ask.job_id, grant_of(job), sharing, job.rate, cause, again=job.again)
        )
        self._done(job, cause, now_s)
        job.again, job.wait = True, None

    def resize(
        self, job: Job, floor: Floor, sharing: int, spots: Spots, cause: Cause, now_s: float, slot: int = -1
    ) -> None:
        """A running job. The spots are free, or its own: its own have been given back to the pool."""
        across = job.floor is not floor or {place for place, _ in spots} != {p for p, _ in job.spots}
        self._used(job, -job.devices)
        job.settle(now_s)
        job.since_s = now_s + (self._across_s(job) if across else self._settings.costs.resize_within_s)
        job.slot = slot
        self._give(job, floor, sharing, spots, now_s)
        self.plan.actions.append(
            Resize(job.ask.job_id, grant_of(job), sharing, job.rate, cause, across=across)
        )
        self._done(job, cause, now_s)

    def suspend(self, job: Job, cause: Cause, now_s: float) -> None:
        """A running job, whose devices have been given back to the pool."""
        self._used(job, -job.devices)
        job.settle(now_s, self._settings.costs.suspend_s)
        job.floor, job.spots, job.sharing, job.rate, job.slot = None, [], 0, 0.0, -1
        job.review_s, job.queued_s = NEVER, now_s
        self.plan.actions.append(Suspend(job.ask.job_id, cause))
        self._done(job, cause, now_s)

    def take_over(self, job: Job, floor: Floor, sharing: int, spots: Spots, slot: int, now_s: float) -> None:
        """A job has these already; nothing is to be done."""
        job.since_s, job.slot = now_s, slot
        self._give(job, floor, sharing, spots, now_s)
        job.again, job.wait = True, None

    def _give(self, job: Job, floor: Floor, sharing: int, spots: Spots, now_s: float) -> None:
        job.floor, job.spots, job.sharing = floor, spots, sharing
        job.rate = job.expected_rate(sharing, self._settings.costs.splice)
        self._used(job, job.devices)
        job.rank, job.review_s = self._judge(job, now_s)
        floor.put(job)

    def _across_s(self, job: Job) -> float:
        costs = self._settings.costs
        return costs.resize_across_s + job.snapshot_bytes / costs.bytes_per_s

    def _done(self, job: Job, cause: Cause, now_s: float) -> None:
        job.cause, job.moved_s = cause, now_s


def grant_of(job: Job) -> Grant:
    """What it has now."""
    names = job.floor.pool.names if job.floor else []
    return Grant(
        tuple(names[place] for place, _ in job.spots),
        tuple(count for _, count in job.spots),
        job.ask.milli,
        job.slot,
    )
