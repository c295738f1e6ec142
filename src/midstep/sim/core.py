"""The events, in virtual time of whole seconds. At one moment: jobs end, jobs arrive, the policy decides.

Deterministic: what happens at one moment is told in the order of the trace, and nothing is read but the
trace, the fleet and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from midstep.sim.errors import Stuck
from midstep.sim.fleet import Fleet
from midstep.sim.policy import Grant, Move, News, Orders, SimPolicy, Start, Stop
from midstep.sim.record import NEVER, Record
from midstep.sim.trace import MILLI, Job

Progress = Callable[[int, int], None]  # jobs that have ended or were refused, of how many
_TOLD_EVERY = 2000  # moments between two words on progress


@dataclass(slots=True)
class Timeline:
    """What changed when: from ``at_s[i]`` on, until the next. Devices as fractions count in part."""

    at_s: list[int] = field(default_factory=list[int])
    used: list[float] = field(default_factory=list[float])
    waiting_devices: list[float] = field(default_factory=list[float])
    waiting_jobs: list[int] = field(default_factory=list[int])
    running_jobs: list[int] = field(default_factory=list[int])


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run. ``moments``: how often the policy decided."""

    policy: str
    fleet: Fleet
    records: list[Record]
    timeline: Timeline
    moments: int


class Core:
    """One run of a policy over jobs on a fleet."""

    def __init__(self, fleet: Fleet, jobs: Sequence[Job], policy: SimPolicy) -> None:
        self.fleet = fleet
        self.policy = policy
        self.records = [Record(job, job.duration_s) for job in jobs]
        self.timeline = Timeline()
        self._jobs = list(jobs)
        self._room = [node.devices * MILLI for node in fleet.nodes]  # milli-devices free, by node
        self._ends: list[tuple[int, int]] = []  # (moment, job's index); stale ones are left in
        self._arrivals = 0  # how many have arrived
        self._done = 0
        self._used = 0  # milli-devices
        self._waiting = 0
        self._waiting_jobs = 0
        self._running_jobs = 0
        self._moments = 0

    def refuse(self, job: Job, why: str) -> None:
        """Do not admit it. Only before `run`."""
        self.records[job.index].refused = why

    def run(self, progress: Progress | None = None) -> Outcome:
        """Until all jobs have ended. Stuck: the policy ordered what cannot be, or lets jobs wait for ever."""
        wake_s: int | None = None
        now_s = NEVER
        while (moment := self._next(wake_s)) is not None:
            now_s = moment
            orders = self.policy.decide(News(now_s, self._ended(now_s), self._arrived(now_s), self.records))
            self._carry_out(now_s, orders)
            self._note(now_s)
            wake_s = orders.wake_s
            if wake_s is not None and wake_s <= now_s:
                raise Stuck(f"{self.policy.name} wants to be woken at {wake_s}, at {now_s}")
            self._moments += 1
            if progress and self._moments % _TOLD_EVERY == 0:
                progress(self._done, len(self._jobs))
        if self._waiting_jobs or self._running_jobs:
            raise Stuck(
                f"{self.policy.name} leaves {self._waiting_jobs} jobs waiting for ever, from {now_s} s on"
            )
        if progress:
            progress(len(self._jobs), len(self._jobs))
        return Outcome(self.policy.name, self.fleet, self.records, self.timeline, self._moments)

    def check(self) -> None:
        """No device twice, sums as they should be. AssertionError: a fault of the simulator."""
        room = [node.devices * MILLI for node in self.fleet.nodes]
        for record in self.records:
            if record.grant is not None:
                assert record.end_s == NEVER and record.since_s != NEVER, record
                for node, count in zip(record.grant.nodes, record.grant.counts):
                    room[node] -= count * record.grant.milli
        assert room == self._room and min(room, default=0) >= 0, "devices given twice"
        assert self._used == self.fleet.devices * MILLI - sum(room)

    def _next(self, wake_s: int | None) -> int | None:
        while self._ends and self.records[self._ends[0][1]].ends_s != self._ends[0][0]:
            heappop(self._ends)
        moments = [self._ends[0][0]] if self._ends else []
        if self._arrivals < len(self._jobs):
            moments.append(self._jobs[self._arrivals].submit_s)
        # A policy may ask to be woken only while there is something that it could do then.
        if wake_s is not None and (self._waiting_jobs or self._running_jobs):
            moments.append(wake_s)
        return min(moments) if moments else None

    def _arrived(self, now_s: int) -> list[Job]:
        found: list[Job] = []
        while self._arrivals < len(self._jobs) and self._jobs[self._arrivals].submit_s == now_s:
            job = self._jobs[self._arrivals]
            self._arrivals += 1
            if self.records[job.index].refused:
                self._done += 1
                continue
            found.append(job)
            self._waiting += job.devices * job.milli
            self._waiting_jobs += 1
        return found

    def _ended(self, now_s: int) -> list[tuple[Job, Grant]]:
        found: list[tuple[Job, Grant]] = []
        while self._ends and self._ends[0][0] == now_s:
            index = heappop(self._ends)[1]
            record = self.records[index]
            if record.ends_s != now_s:
                continue
            grant = self._take_back(now_s, record)
            record.left_s, record.end_s, record.ends_s = 0, now_s, NEVER
            self._running_jobs -= 1
            self._done += 1
            found.append((record.job, grant))
        return found

    def _carry_out(self, now_s: int, orders: Orders) -> None:
        for action in orders.actions:
            record = self.records[action.job.index]
            match action:
                case Start():
                    self._start(now_s, record, action)
                case Stop():
                    self._stop(now_s, record, action)
                case Move():
                    self._move(now_s, record, action)

    def _start(self, now_s: int, record: Record, action: Start) -> None:
        if record.grant is not None or record.end_s != NEVER or record.job.submit_s > now_s:
            raise Stuck(f"{self.policy.name} starts {record.job.job_id} at {now_s}, which does not wait")
        self._waiting -= record.job.devices * record.job.milli
        self._waiting_jobs -= 1
        self._running_jobs += 1
        if record.first_s == NEVER:
            record.first_s = now_s
        self._give(now_s, record, action)

    def _stop(self, now_s: int, record: Record, action: Stop) -> None:
        if record.grant is None:
            raise Stuck(f"{self.policy.name} stops {record.job.job_id} at {now_s}, which does not run")
        record.left_s = record.left_at(now_s) + action.lost_s
        record.lost_device_s += action.lost_s * record.job.size
        self._take_back(now_s, record)
        record.ends_s = NEVER
        record.stops += 1
        self._running_jobs -= 1
        self._waiting_jobs += 1
        self._waiting += record.job.devices * record.job.milli

    def _move(self, now_s: int, record: Record, action: Move) -> None:
        if record.grant is None:
            raise Stuck(f"{self.policy.name} moves {record.job.job_id} at {now_s}, which does not run")
        record.left_s = record.left_at(now_s)
        self._take_back(now_s, record)
        record.moves += 1
        self._give(now_s, record, action)

    def _give(self, now_s: int, record: Record, action: Start | Move) -> None:
        grant = action.grant
        for node, count in zip(grant.nodes, grant.counts):
            self._room[node] -= count * grant.milli
            if self._room[node] < 0 or count < 0:
                name = self.fleet.nodes[node].name
                raise Stuck(f"{self.policy.name} gives more of {name} than there is, at {now_s}")
        self._used += grant.devices * grant.milli
        record.grant, record.granted_s, record.rate = grant, now_s, action.rate
        record.since_s = now_s + action.overhead_s
        record.lost_device_s += action.overhead_s * grant.devices * grant.milli / MILLI
        work_s = record.left_s if action.rate == 1.0 else math.ceil(record.left_s / action.rate - 1e-9)
        record.ends_s = int(record.since_s + work_s) + self.policy.end_lag_s
        heappush(self._ends, (record.ends_s, record.job.index))

    def _take_back(self, now_s: int, record: Record) -> Grant:
        grant = record.grant
        assert grant is not None
        for node, count in zip(grant.nodes, grant.counts):
            self._room[node] += count * grant.milli
        self._used -= grant.devices * grant.milli
        held_s = now_s - record.granted_s
        if now_s < record.since_s:  # what was counted as lost in advance was not all
            record.lost_device_s -= (record.since_s - now_s) * grant.devices * grant.milli / MILLI
        record.run_s += held_s
        record.held_device_s += held_s * grant.devices * grant.milli / MILLI
        record.grant = None
        return grant

    def _note(self, now_s: int) -> None:
        line = self.timeline
        if line.at_s and line.at_s[-1] == now_s:
            for column in (line.at_s, line.used, line.waiting_devices, line.waiting_jobs, line.running_jobs):
                column.pop()
        line.at_s.append(now_s)
        line.used.append(self._used / MILLI)
        line.waiting_devices.append(self._waiting / MILLI)
        line.waiting_jobs.append(self._waiting_jobs)
        line.running_jobs.append(self._running_jobs)
