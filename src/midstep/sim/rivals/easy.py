"""EASY backfill, as in Slurm: first in, first out, but a later job may start now if by its user's estimate
that does not delay the first one (Lifka, JSSPP'95; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001).

The first job's start is found by letting the running ones end as their users said. A later one may start if
it would have ended by then, or if it would fit beside the first one then.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from itertools import islice

from midstep.sim.policy import Grant, News, Orders, Placer, Start, settle
from midstep.sim.rivals.again import overhead_s
from midstep.sim.trace import Job

DEPTH = 500  # how many waiting jobs are looked at (Slurm's bf_max_job_test)


class Easy:
    """See the module."""

    name = "easy"
    end_lag_s = 0

    def __init__(self, placer: Placer) -> None:
        self._placer = placer
        self._queue: deque[Job] = deque()
        self._running: list[tuple[int, int, Job, Grant]] = []  # by when they should end
        self._should: dict[int, int] = {}  # index -> when it should end

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        orders = Orders()
        settle(self._placer, news)
        for job, _ in (*news.ended, *news.cut):
            key = (self._should.pop(job.index), job.index)
            del self._running[bisect_left(self._running, key, key=lambda entry: entry[:2])]
        if news.cut:
            self._queue = deque(sorted((*self._queue, *(job for job, _ in news.cut)), key=_turn))
        self._queue.extend(news.arrived)
        while self._queue and (grant := self._placer.place(self._queue[0])) is not None:
            self._start(self._queue.popleft(), grant, news, orders)
        if len(self._queue) > 1 and self._placer.free:
            self._backfill(news, orders)
        return orders

    def _start(self, job: Job, grant: Grant, news: News, orders: Orders) -> None:
        again_s = overhead_s(news.records[job.index])
        end_s = news.now_s + again_s + (job.estimate_s or job.duration_s)
        self._should[job.index] = end_s
        insort(self._running, (end_s, job.index, job, grant), key=lambda entry: entry[:2])
        orders.actions.append(Start(job, grant, again_s))

    def _backfill(self, news: News, orders: Orders) -> None:
        now_s = news.now_s
        plan: tuple[int, Placer] | None = None  # made when the first one is met that fits now
        started: set[int] = set()
        refused: set[int] = set()  # sizes that do not fit now
        for job in islice(self._queue, 1, DEPTH + 1):
            if job.devices in refused or (grant := self._placer.place(job)) is None:
                if not job.device_types and not job.cpus:
                    refused.add(job.devices)
                continue
            if plan is None:
                self._placer.give_back(job, grant)
                plan = self._when_first(now_s)
                grant = self._placer.place(job)
                assert grant is not None  # as a moment ago
            then_s, then = plan
            in_time = now_s + (job.estimate_s or job.duration_s) <= then_s
            if not in_time and then.place(job) is None:
                self._placer.give_back(job, grant)
                continue
            started.add(job.index)
            self._start(job, grant, news, orders)
        if started:
            self._queue = deque(job for job in self._queue if job.index not in started)

    def _when_first(self, now_s: int) -> tuple[int, Placer]:
        """When the first in the queue can start, and what is free then beside it."""
        then, first = self._placer.copy(), self._queue[0]
        free = then.free
        for end_s, _, job, grant in self._running:
            then.give_back(job, grant)
            free += grant.devices
            if free >= first.devices and then.place(first) is not None:
                return max(end_s, now_s), then
        return now_s, then


def _turn(job: Job) -> int:
    return job.index
