"""Preempt and restart from hourly checkpoints, as teams run under Kueue: quotas by group, borrowing of what
others leave, reclaiming it by stopping jobs, which start again later from their newest checkpoint.

A group's quota is its share of the devices by what its jobs ask for over the trace. Waiting jobs go by
tier, then by submission; one that does not fit holds nobody back (BestEffortFIFO). A job may have others
stopped: within its group's quota those of groups above theirs (reclaimWithinCohort: Any), and of its own
group those of lower tiers (withinClusterQueue: LowerPriority); others' first, lower tiers and newer ones
first, and no more than needed. A stopped job loses what it did since its last full hour, and needs
`RESTART_S` to come up again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping

from midstep.model.tiers import Tier
from midstep.sim.policy import Grant, News, Orders, Placer, Start, Stop, settle
from midstep.sim.record import Record
from midstep.sim.rivals.again import RESTART_S
from midstep.sim.trace import Job

CHECKPOINT_S = 3600
DEPTH = 500  # how many waiting jobs are looked at
_RANK = {Tier.PREMIUM: 0, Tier.STANDARD: 1, Tier.BASIC: 2}
Entry = tuple[int, int, Job]  # tier, index, the job


class Restart:
    """See the module. ``quotas``: group -> devices."""

    name = "restart"
    end_lag_s = 0

    def __init__(self, placer: Placer, quotas: Mapping[str, float]) -> None:
        self._placer, self._quotas = placer, quotas
        self._waiting: list[Entry] = []
        self._again = False  # everybody is to be looked at next time
        self._running: dict[int, tuple[int, Job, Grant]] = {}  # index -> since when, the job, its devices
        self._used: dict[str, float] = dict.fromkeys(quotas, 0.0)
        self._by_tier: dict[tuple[str, int], float] = {}  # the same, by group and rank of the tier

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        orders = Orders()
        settle(self._placer, news)
        for job, _ in (*news.ended, *news.cut):
            del self._running[job.index]
            self._count(job, -job.size)
        for job, _ in news.cut:
            insort(self._waiting, (_RANK[job.tier], job.index, job))
        arrived = [(_RANK[job.tier], job.index, job) for job in news.arrived]
        for entry in arrived:
            insort(self._waiting, entry)
        # Whoever found no place before finds none now, unless something has become free.
        candidates = (
            self._waiting[:DEPTH] if news.ended or news.cut or news.back or self._again else sorted(arrived)
        )
        self._again = False
        failed: dict[tuple[str, tuple[str, ...]], int] = {}  # the smallest of a group that found no place
        tried: set[str] = set()  # groups whose first job in need could not be helped: once a moment
        for entry in candidates:
            job = entry[2]
            key = (job.group, job.device_types)
            if job.devices >= failed.get(key, 1 << 30):
                continue
            grant = self._placer.place(job)
            if grant is None and job.group not in tried:
                grant = self._reclaim(job, news, orders)
                if grant is None:
                    tried.add(job.group)
            if grant is None:
                failed[key] = job.devices
                continue
            self._start(job, grant, news, orders)
        return orders

    def _start(self, job: Job, grant: Grant, news: News, orders: Orders) -> None:
        del self._waiting[bisect_left(self._waiting, (_RANK[job.tier], job.index), key=lambda e: e[:2])]
        self._running[job.index] = (news.now_s, job, grant)
        self._count(job, job.size)
        record = news.records[job.index]
        again = record.stops > 0 or record.cuts > 0
        orders.actions.append(Start(job, grant, overhead_s=RESTART_S if again else 0))

    def _reclaim(self, job: Job, news: News, orders: Orders) -> Grant | None:
        if job.size > self._reach(job):
            return None
        victims = self._victims(job)
        trial, used = self._placer.copy(), dict(self._used)
        free = trial.free
        most = max(self._quotas[job.group], used[job.group])
        stopped: list[tuple[Job, Grant]] = []
        fits = False
        for victim, grant in victims:
            other = victim.group != job.group
            if other and used[victim.group] <= self._quotas[victim.group]:
                continue  # its group has no more than its own by now
            trial.give_back(victim, grant)
            used[victim.group] -= victim.size
            stopped.append((victim, grant))
            free += grant.devices
            if free >= job.devices and used[job.group] + job.size <= most and trial.place(job) is not None:
                fits = True
                break
        if not fits:
            return None
        for victim, grant in self._needed(job, stopped):
            self._stop(victim, grant, news, orders)
        return self._placer.place(job)

    def _reach(self, job: Job) -> float:
        """Devices that are free, or that it may take from others: no less than what it can get."""
        rank, own = _RANK[job.tier], self._used[job.group]
        found = self._placer.free + sum(self._by_tier.get((job.group, r), 0.0) for r in range(rank + 1, 3))
        if own + job.size <= self._quotas[job.group]:
            # The last one that is stopped of a group may take it below its quota.
            found += sum(
                used
                for group, used in self._used.items()
                if group != job.group and used > self._quotas[group]
            )
        return found

    def _victims(self, job: Job) -> list[tuple[Job, Grant]]:
        """Whom it may have stopped, the cheapest first."""
        rank = _RANK[job.tier]
        within = self._used[job.group] + job.size <= self._quotas[job.group]
        found = [
            (other.group == job.group, -_RANK[other.tier], -since_s, -other.index, other, grant)
            for since_s, other, grant in self._running.values()
            if (
                _RANK[other.tier] > rank
                if other.group == job.group
                else within and self._used[other.group] > self._quotas[other.group]
            )
        ]
        return [(item[4], item[5]) for item in sorted(found, key=lambda item: item[:4])]

    def _needed(self, job: Job, stopped: list[tuple[Job, Grant]]) -> list[tuple[Job, Grant]]:
        """Of those, the last ones first, without whom it would not fit."""
        needed = list(stopped)
        over = self._used[job.group] + job.size - max(self._quotas[job.group], self._used[job.group])
        for candidate in stopped[:-1]:
            rest = [item for item in needed if item is not candidate]
            if sum(victim.size for victim, _ in rest if victim.group == job.group) < over:
                continue
            trial = self._placer.copy()
            for victim, grant in rest:
                trial.give_back(victim, grant)
            if trial.place(job) is not None:
                needed = rest
        return needed

    def _stop(self, victim: Job, grant: Grant, news: News, orders: Orders) -> None:
        del self._running[victim.index]
        self._placer.give_back(victim, grant)
        self._count(victim, -victim.size)
        self._again = True  # it may fit elsewhere
        insort(self._waiting, (_RANK[victim.tier], victim.index, victim))
        orders.actions.append(Stop(victim, lost_s=_since_checkpoint(news.records[victim.index], news.now_s)))

    def _count(self, job: Job, size: float) -> None:
        self._used[job.group] += size
        key = (job.group, _RANK[job.tier])
        self._by_tier[key] = self._by_tier.get(key, 0.0) + size


def _since_checkpoint(record: Record, now_s: int) -> int:
    return max(0, now_s - record.since_s) % CHECKPOINT_S
