"""Where each job stands now: its rank, and when that is to be looked at again."""

from __future__ import annotations

from midstep.model.tiers import Tier
from midstep.policy.learned import Learned
from midstep.policy.ledger import HOUR_S, NEVER, Job
from midstep.policy.order import BORROWED, OWED, PREMIUM, SPARE, begins, rank, step_of

EARNS_S = 900.0  # a job that has all of its devices is looked at so often; it gives some up for half as long
MARGIN_S = 200.0  # for growing back in time


class Judge:
    """``learned``: what ended jobs have taught."""

    def __init__(self) -> None:
        self.learned = Learned()

    def __call__(self, job: Job, now_s: float) -> tuple[int, float]:
        """See the module."""
        if job.tier is Tier.PREMIUM:
            return rank(PREMIUM, job.ask.priority, 0), NEVER
        if job.tier is Tier.STANDARD:
            owed_s = self._owed_at(job, now_s)
            if owed_s is None:
                return rank(OWED, job.ask.priority, 0), now_s + EARNS_S if job.whole else NEVER
            step = self.learned.step(job.ask, step_of(job.work(now_s)))
            return rank(SPARE, job.ask.priority, step), owed_s
        work = job.work(now_s)
        step = step_of(work)
        review_s = NEVER
        if job.runs and job.size and job.rate:
            review_s = max(now_s, job.since_s) + 1 + (begins(step + 1) - work) / (job.rate * job.size)
        band = BORROWED if job.borrowed else SPARE
        return rank(band, job.ask.priority, self.learned.step(job.ask, step)), review_s

    def _owed_at(self, job: Job, now_s: float) -> float | None:
        """None: it has to have all of its devices now. Else it has had more than it is promised, and can do
        with half of them until then."""
        if not job.runs or job.size < 2 or job.slot >= 0 or job.sharing > 2:
            return None
        promised = job.tier.guarantee
        lacked_s = (1.0 - job.fraction(now_s)) * min(HOUR_S, now_s - job.submit_s)
        life_s = job.useful_s(now_s) - promised * (now_s - job.submit_s)
        spare_s = min((1.0 - promised) * HOUR_S - lacked_s, life_s) - MARGIN_S
        if job.whole:
            return now_s + EARNS_S if spare_s >= EARNS_S / 2 else None
        return now_s + max(60.0, spare_s / (1.0 - job.rate)) if spare_s > 0 else None
