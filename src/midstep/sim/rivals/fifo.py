"""First in, first out; strictly: the first job that does not fit holds back all behind it (head-of-line
blocking), as in the simulations of Hu et al., SC'21."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from midstep.sim.policy import News, Orders, Placer, Start, settle
from midstep.sim.rivals.again import overhead_s
from midstep.sim.trace import Job


class StrictQueue:
    """Jobs in order of a key, equal ones as they came; from the front, for as long as they fit."""

    end_lag_s = 0

    def __init__(self, name: str, placer: Placer, key: Callable[[Job], int]) -> None:
        self.name = name
        self._placer, self._key = placer, key
        self._queue: list[tuple[int, int, Job]] = []

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        settle(self._placer, news)
        for job in (*(job for job, _ in news.cut), *news.arrived):
            heappush(self._queue, (self._key(job), job.index, job))
        orders = Orders()
        while self._queue:
            job = self._queue[0][2]
            grant = self._placer.place(job)
            if grant is None:
                break
            heappop(self._queue)
            orders.actions.append(Start(job, grant, overhead_s(news.records[job.index])))
        return orders


def fifo(placer: Placer) -> StrictQueue:
    """By submission."""
    return StrictQueue("fifo", placer, lambda job: job.submit_s)
