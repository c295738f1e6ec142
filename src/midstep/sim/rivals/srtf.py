"""Shortest remaining time first: knows every duration, and preempts (Hu et al., SC'21).

Jobs, waiting and running, in order of the work that is left are chosen as long as the devices last, those
that are too large left out; a running one that is not chosen is stopped, which adds 7, 30 or 60 s to its
work. Chosen ones that wait are placed; if their devices are too scattered they go on waiting, and still
count. A job gives its devices back one second after its work is done.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from midstep.sim.policy import Grant, News, Orders, Placer, Start, Stop, settle
from midstep.sim.rivals.again import overhead_s
from midstep.sim.trace import Job

Entry = tuple[int, int, Job]  # what orders it, when it came into its list, the job


def checkpoint_s(job: Job) -> int:
    """What stopping a job adds to its work, seconds."""
    if job.devices <= 1:
        return 7
    return 30 if job.devices <= 8 else 60


class Srtf:
    """See the module."""

    name = "srtf"
    end_lag_s = 1

    def __init__(self, placer: Placer) -> None:
        self._placer = placer
        self._waiting: list[Entry] = []  # by the work left
        # By when the work is done: all shrink at the same rate, so their order is that of the work left.
        self._running: list[Entry] = []
        self._entries: dict[int, Entry] = {}  # of the running ones
        self._grants: dict[int, Grant] = {}
        self._count = 0
        self._asked = 0  # devices, of all that wait or run

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`. After a change it looks again a second later: what was stopped has more work left
        then, so others may be chosen."""
        now_s, orders = news.now_s, Orders()
        settle(self._placer, news)
        for job, _ in news.ended:
            self._forget(job)
            self._asked -= job.devices
        for job, _ in news.cut:
            self._forget(job)
            insort(self._waiting, (math.ceil(news.records[job.index].left_s), self._next(), job))
        for job in news.arrived:
            insort(self._waiting, (job.duration_s, self._next(), job))
            self._asked += job.devices
        chosen, stopped = self._choose(now_s)
        for entry in stopped:
            job = entry[2]
            self._placer.give_back(job, self._grants[job.index])
            self._forget(job)
            insort(self._waiting, (entry[0] - now_s + checkpoint_s(job), self._next(), job))
            orders.actions.append(Stop(job, checkpoint_s(job)))
        for entry in chosen:
            job = entry[2]
            grant = self._placer.place(job)
            if grant is None:
                continue
            del self._waiting[bisect_left(self._waiting, entry)]
            again_s = overhead_s(news.records[job.index])
            running = (now_s + again_s + entry[0], self._next(), job)
            insort(self._running, running)
            self._entries[job.index], self._grants[job.index] = running, grant
            orders.actions.append(Start(job, grant, again_s))
        if orders.actions:
            orders.wake_s = now_s + 1
        return orders

    def _choose(self, now_s: int) -> tuple[list[Entry], list[Entry]]:
        """Waiting ones that shall run, running ones that shall not. Of equal ones those that wait first."""
        quota = self._placer.total
        if self._asked < quota:  # all of them
            return self._waiting.copy(), []
        chosen: list[Entry] = []
        stopped: list[Entry] = []
        waiting, running = self._waiting, self._running
        next_waiting, last_waiting = 0, len(waiting)
        for position, entry in enumerate(running):
            left_s = entry[0] - now_s
            while next_waiting < last_waiting and waiting[next_waiting][0] <= left_s:
                if waiting[next_waiting][2].devices <= quota:
                    chosen.append(waiting[next_waiting])
                    quota -= waiting[next_waiting][2].devices
                next_waiting += 1
            if quota <= 0:
                return chosen, stopped + [e for e in running[position:] if e[2].devices]
            if entry[2].devices <= quota:
                quota -= entry[2].devices
            else:
                stopped.append(entry)
        for entry in waiting[next_waiting:]:
            if quota <= 0:
                break
            if entry[2].devices <= quota:
                chosen.append(entry)
                quota -= entry[2].devices
        return chosen, stopped

    def _forget(self, job: Job) -> None:
        del self._running[bisect_left(self._running, self._entries.pop(job.index))]
        del self._grants[job.index]

    def _next(self) -> int:
        self._count += 1
        return self._count
