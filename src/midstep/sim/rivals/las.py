"""Least attained service, discretised in two queues, as in Tiresias (Gu et al., NSDI'19, Tiresias-L): knows
nothing of durations.

A job begins in the first queue and leaves it for good when it has had `LIMIT_DEVICE_S` device seconds. The
first queue goes before the second; within one, whoever came into it first. Jobs in that order are chosen as
long as the devices last; running ones that are not chosen are stopped. Nobody is promoted for waiting (the
published default).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush

from midstep.sim.policy import Grant, News, Orders, Placer, Start, Stop, settle
from midstep.sim.rivals.again import overhead_s
from midstep.sim.rivals.srtf import checkpoint_s
from midstep.sim.trace import Job

LIMIT_DEVICE_S = 3250.0
Entry = tuple[int, int, int, Job]  # queue, when it came there, the job's index, the job


class Las:
    """See the module."""

    name = "las"
    end_lag_s = 0

    def __init__(self, placer: Placer, limit_device_s: float = LIMIT_DEVICE_S) -> None:
        self._placer, self._limit = placer, limit_device_s
        self._active: list[Entry] = []  # waiting and running, in order
        self._entries: dict[int, Entry] = {}
        self._grants: dict[int, Grant] = {}  # of running ones
        self._had: dict[int, float] = {}  # device seconds, of stretches that are over
        self._from: dict[int, int] = {}  # the present stretch began
        self._leaves: list[
            tuple[int, int]
        ] = []  # (moment, index): leaves the first queue, if nothing changes
        self._asked = 0  # devices, of all in `_active`

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        now_s, orders = news.now_s, Orders()
        settle(self._placer, news)
        for job, _ in news.cut:
            self._pause(job, now_s)
        for job, _ in news.ended:
            self._remove(job)
            self._asked -= job.devices
            for table in (self._grants, self._had, self._from):
                table.pop(job.index, None)
        for job in news.arrived:
            self._add((0, now_s, job.index, job))
            self._asked += job.devices
        self._demote(now_s)
        chosen, stopped = self._choose()
        for job in stopped:
            self._placer.give_back(job, self._grants[job.index])
            self._pause(job, now_s)
            orders.actions.append(Stop(job, checkpoint_s(job)))
        for job in chosen:
            grant = self._placer.place(job)
            if grant is None:
                continue
            self._grants[job.index], self._from[job.index] = grant, now_s
            orders.actions.append(Start(job, grant, overhead_s(news.records[job.index])))
            self._expect(job, now_s)
        orders.wake_s = self._next_leave(now_s)
        return orders

    def _pause(self, job: Job, now_s: int) -> None:
        """It has no devices any more."""
        del self._grants[job.index]
        self._had[job.index] = self._service(job, now_s)
        del self._from[job.index]

    def _choose(self) -> tuple[list[Job], list[Job]]:
        quota = self._placer.total
        if self._asked < quota:  # all of them
            if len(self._grants) == len(self._active):
                return [], []
            return [job for _, _, index, job in self._active if index not in self._grants], []
        chosen: list[Job] = []
        kept: set[int] = set()
        for _, _, index, job in self._active:
            if quota <= 0:
                break
            if job.devices <= quota:
                quota -= job.devices
                if index in self._grants:
                    kept.add(index)
                else:
                    chosen.append(job)
        stopped = [self._entries[index][3] for index in self._grants if index not in kept]
        return chosen, stopped

    def _demote(self, now_s: int) -> None:
        while self._leaves and self._leaves[0][0] <= now_s:
            index = heappop(self._leaves)[1]
            entry = self._entries.get(index)
            if entry is None or entry[0] or index not in self._grants:
                continue
            if self._service(entry[3], now_s) >= self._limit:
                self._remove(entry[3])
                self._add((1, now_s, index, entry[3]))

    def _expect(self, job: Job, now_s: int) -> None:
        if self._entries[job.index][0] == 0 and job.size:
            left_s = (self._limit - self._had.get(job.index, 0.0)) / job.size
            heappush(self._leaves, (now_s + max(1, int(-(-left_s // 1))), job.index))

    def _next_leave(self, now_s: int) -> int | None:
        while self._leaves:
            at_s, index = self._leaves[0]
            if at_s > now_s and index in self._grants and self._entries[index][0] == 0:
                return at_s
            heappop(self._leaves)
        return None

    def _service(self, job: Job, now_s: int) -> float:
        began = self._from.get(job.index, now_s)
        return self._had.get(job.index, 0.0) + (now_s - began) * job.size

    def _add(self, entry: Entry) -> None:
        insort(self._active, entry)
        self._entries[entry[2]] = entry

    def _remove(self, job: Job) -> None:
        del self._active[bisect_left(self._active, self._entries.pop(job.index))]
