"""Where each job stands now: its rank, and when that is to be looked at again."""

from __future__ import annotations

from midstep.model.tiers import Tier
from midstep.policy.learned import Learned
from midstep.policy.ledger import NEVER, Job
from midstep.policy.order import OWED, PREMIUM, SPARE, begins, rank, step_of


class Judge:
    """``learned``: what ended jobs have taught."""

    def __init__(self) -> None:
        self.learned = Learned()

    def __call__(self, job: Job, now_s: float) -> tuple[int, float]:
        """See the module."""
        if job.tier is Tier.PREMIUM:
            return rank(PREMIUM, job.ask.priority, 0), NEVER
        if job.tier is Tier.STANDARD:
            return rank(OWED, job.ask.priority, 0), NEVER
        work = job.work(now_s)
        step = step_of(work)
        review_s = NEVER
        if job.runs and job.size and job.rate:
            review_s = max(now_s, job.since_s) + 1 + (begins(step + 1) - work) / (job.rate * job.size)
        return rank(SPARE + job.borrowed, job.ask.priority, self.learned.step(job.ask, step)), review_s
