"""The events, in virtual time of whole seconds. At one moment: jobs end, nodes come back, nodes fail, jobs
arrive, the policy decides.

Deterministic: what happens at one moment is told in the order of the trace (of nodes: of the fleet), and
nothing is read but the trace, the fleet, the terms and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from midstep.sim.books import Books
from midstep.sim.errors import Stuck
from midstep.sim.failures import Faults
from midstep.sim.fleet import Fleet
from midstep.sim.outcome import Outcome, Terms, Timeline
from midstep.sim.policy import Decline, Grant, Move, News, Orders, SimPolicy, Start, Stop
from midstep.sim.record import NEVER, Record
from midstep.sim.trace import MILLI, Job

Progress = Callable[[int, int], None]  # jobs that have ended or were refused, of how many
_TOLD_EVERY = 2000  # moments between two words on progress
# So long jobs may wait for nodes to come back, with nothing else to come, before they wait for ever.
_PATIENCE_S = 90 * 86400


class Core:
    """One run of a policy over jobs on a fleet."""

    def __init__(
        self, fleet: Fleet, jobs: Sequence[Job], policy: SimPolicy, terms: Terms | None = None
    ) -> None:
        self.fleet = fleet
        self.policy = policy
        self.terms = terms or Terms()
        self.records = [Record(job, job.duration_s) for job in jobs]
        self.timeline = Timeline()
        self._jobs = list(jobs)
        self._books = Books(fleet, policy, self.terms)
        self._faults: Faults | None = None
        if self.terms.failures is not None and jobs:
            names, spot = [node.name for node in fleet.nodes], [node.spot for node in fleet.nodes]
            self._faults = Faults(self.terms.failures, names, self.terms.seed, jobs[0].submit_s, spot)
        self._ends: list[tuple[int, int]] = []  # (moment, job's index); stale ones are left in
        self._arrivals = 0  # how many have arrived
        self._done = 0
        self._waiting = 0  # milli-devices
        self._waiting_jobs = 0
        self._running_jobs = 0
        self._moments = 0
        self._disturbed = 0
        self._acted_s = 0  # when the policy last ordered something

    def refuse(self, job: Job, why: str) -> None:
        """Do not admit it. Only before `run`."""
        self.records[job.index].refused = why

    def run(self, progress: Progress | None = None) -> Outcome:
        """Until all jobs have ended. Stuck: the policy ordered what cannot be, or lets jobs wait for ever."""
        wake_s: int | None = None
        now_s = NEVER
        while (moment := self._next(wake_s)) is not None:
            now_s = moment
            news = self._news(now_s)
            orders = self.policy.decide(news)
            self._carry_out(now_s, orders)
            for node in news.noticed:
                self._books.leaves(node)
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
        return Outcome(
            self.policy.name, self.fleet, self.records, self.timeline, self._moments, self.terms.where
        )

    def check(self) -> None:
        """No device twice, sums as they should be. AssertionError: a fault of the simulator."""
        self._books.check(self.records)

    def _next(self, wake_s: int | None) -> int | None:
        ends = self._ends
        while ends and self.records[ends[0][1]].ends_s != ends[0][0]:
            heappop(ends)
        found = ends[0][0] if ends else None
        if self._arrivals < len(self._jobs):
            at_s = self._jobs[self._arrivals].submit_s
            found = at_s if found is None or at_s < found else found
        # A policy may ask to be woken only while there is something that it could do then.
        if self._waiting_jobs or self._running_jobs:
            if wake_s is not None and (found is None or wake_s < found):
                found = wake_s
            at_s = self._faults.next_s if self._faults else math.inf
            if at_s < math.inf and (found is not None or at_s < self._acted_s + _PATIENCE_S):
                found = int(at_s) if found is None or at_s < found else found
        return found

    def _news(self, now_s: int) -> News:
        news = News(now_s, self._ended(now_s), [], self.records)
        if self._faults and self._faults.next_s <= now_s:
            turns = self._faults.at(now_s)
            news.back, news.lost, news.noticed = turns.back, turns.lost, turns.noticed
            for node in news.back:
                self._books.back(node)
            for node in news.lost:
                self._fail(now_s, node, news)
        news.arrived = self._arrived(now_s)
        return news

    def _arrived(self, now_s: int) -> list[Job]:
        found: list[Job] = []
        while self._arrivals < len(self._jobs) and self._jobs[self._arrivals].submit_s <= now_s:
            job = self._jobs[self._arrivals]
            self._arrivals += 1
            if self.records[job.index].refused:
                self._done += 1
                continue
            found.append(job)
            self._wait(job)
        return found

    def _ended(self, now_s: int) -> list[tuple[Job, Grant]]:
        found: list[tuple[Job, Grant]] = []
        while self._ends and self._ends[0][0] == now_s:
            index = heappop(self._ends)[1]
            record = self.records[index]
            if record.ends_s != now_s:
                continue
            grant = self._books.take_back(now_s, record)
            record.left_s, record.end_s, record.ends_s = 0, now_s, NEVER
            self._running_jobs -= 1
            self._done += 1
            found.append((record.job, grant))
        return found

    def _fail(self, now_s: int, node: int, news: News) -> None:
        for index in self._books.on(node):
            record = self.records[index]
            lost_s = self._books.lost_s(now_s, record)
            news.cut.append((record.job, self._books.stop(now_s, record, lost_s)))
            record.cuts += 1
            self._disturbed += 1
            record.broken = True
            self._running_jobs -= 1
            self._wait(record.job)
        self._books.lost(node)

    def _carry_out(self, now_s: int, orders: Orders) -> None:
        if orders.actions:
            self._acted_s = now_s
        for action in orders.actions:
            record = self.records[action.job.index]
            match action:
                case Start():
                    self._start(now_s, record, action)
                case Stop():
                    self._stop(now_s, record, action)
                case Move():
                    self._move(now_s, record, action)
                case Decline():
                    self._decline(now_s, record, action)

    def _start(self, now_s: int, record: Record, action: Start) -> None:
        self._must_wait(now_s, record, "starts")
        self._wait_no_more(record.job)
        self._running_jobs += 1
        overhead_s = action.overhead_s
        if record.first_s == NEVER:
            record.first_s = now_s
            overhead_s += self.terms.costs.begin_s(action.grant.devices)
        record.broken = False
        self._give(now_s, record, action, overhead_s)

    def _stop(self, now_s: int, record: Record, action: Stop) -> None:
        self._must_run(now_s, record, "stops")
        self._books.stop(now_s, record, action.lost_s)
        record.stops += 1
        self._disturbed += 1
        self._running_jobs -= 1
        self._wait(record.job)

    def _move(self, now_s: int, record: Record, action: Move) -> None:
        self._must_run(now_s, record, "moves")
        self._books.stop(now_s, record, 0)
        record.moves += 1
        self._disturbed += 1
        self._give(now_s, record, action, action.overhead_s)

    def _decline(self, now_s: int, record: Record, action: Decline) -> None:
        self._must_wait(now_s, record, "declines")
        if not action.for_good:
            record.unguaranteed = action.why
        elif record.first_s != NEVER:
            raise Stuck(f"{self.policy.name} turns {record.job.job_id} away at {now_s}, which has run")
        else:
            record.refused = action.why
            self._wait_no_more(record.job)
            self._done += 1

    def _must_wait(self, now_s: int, record: Record, does: str) -> None:
        # (A job that was refused waits no more than one that has ended.)
        gone = record.end_s != NEVER or record.refused
        if record.grant is not None or gone or record.job.submit_s > now_s:
            raise Stuck(f"{self.policy.name} {does} {record.job.job_id} at {now_s}, which does not wait")

    def _must_run(self, now_s: int, record: Record, does: str) -> None:
        if record.grant is None:
            raise Stuck(f"{self.policy.name} {does} {record.job.job_id} at {now_s}, which does not run")

    def _give(self, now_s: int, record: Record, action: Start | Move, overhead_s: int) -> None:
        self._books.give(now_s, record, action, overhead_s)
        heappush(self._ends, (record.ends_s, record.job.index))

    def _wait(self, job: Job) -> None:
        self._waiting += job.devices * job.milli
        self._waiting_jobs += 1
        if self.terms.watch:
            self.terms.watch.waits(job)

    def _wait_no_more(self, job: Job) -> None:
        self._waiting -= job.devices * job.milli
        self._waiting_jobs -= 1
        if self.terms.watch:
            self.terms.watch.waits_no_more(job)

    def _note(self, now_s: int) -> None:
        idle = self.terms.watch.idle() if self.terms.watch else 0
        self.timeline.note(
            now_s,
            self._books.used / MILLI,
            self._waiting / MILLI,
            self._waiting_jobs,
            self._running_jobs,
            self._books.there,
            idle,
            self._disturbed,
        )
