"""The scheduler: told what happens, it says what to do. Pure; README.md has the whole interface."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from midstep.policy.asks import Ask, Grant, NodeShape, Quota, Settings
from midstep.policy.causes import Cause, NodeGone, Waiting
from midstep.policy.cluster import Cluster
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand, grant_of
from midstep.policy.judge import Judge
from midstep.policy.ledger import NEVER, Job
from midstep.policy.plan import Admission, Plan
from midstep.policy.projects.borrowing import Borrowing
from midstep.policy.projects.quota import Projects, Usage
from midstep.policy.routing import Routing
from midstep.policy.spill import refuge, rescue, spill


class Scheduler:
    """See README.md. Times are seconds, of whatever clock; they never go back."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.jobs: dict[str, Job] = {}
        self.clusters: dict[tuple[str, str], Cluster] = {}
        self.projects = Projects(self.settings.quotas)
        self.judge = Judge()
        self.routing = Routing(self.clusters, self.projects, self.settings)
        self._borrowing = Borrowing(self.projects, self.settings.tick_s)
        self._nodes: dict[str, tuple[Cluster, Floor, int]] = {}
        self._home: dict[str, Cluster] = {}  # job -> its cluster
        self._hand = Hand(self.judge, self._borrowing.used, self.settings)
        self._touched: dict[Cluster, None] = {}
        self._wakes: dict[Cluster, float] = {}
        self._look_s = 0.0  # when all clusters are next looked at for jobs that could be sent elsewhere

    # Nodes.

    def node_joined(self, shape: NodeShape) -> None:
        """It is there, or there again, and its devices are free. ValueError: it is there already."""
        known = self._nodes.get(shape.name)
        if known is not None and known[1].pool.sizes[known[2]]:
            raise ValueError(f"node {shape.name} is there already")
        key = (shape.region, shape.cluster)
        cluster = self.clusters.get(key)
        if cluster is None:
            cluster = Cluster(*key, self.judge, self._hand, self.projects, self.settings)
            cluster.refuge = self._refuge
            cluster.phase_s = len(self.clusters) * 7 % self.settings.tick_s
            self.clusters[key] = cluster
        floor = cluster.join(shape)
        self._nodes[shape.name] = (cluster, floor, floor.pool.places[shape.name])
        self._touch(cluster)

    def node_left(self, now_s: float, name: str) -> None:
        """It is gone: jobs on it wait again, which the next plan says with `Suspend`."""
        cluster, floor, place = self._nodes.pop(name)
        for job in list(floor.on.get(place, ())):
            floor.lift(job)
            self._hand.suspend(job, NodeGone(name), now_s)
            cluster.add(job, now_s)
        floor.pool.leave(place)
        cluster.refit()
        self._touch(cluster)

    def cordon(self, name: str) -> None:
        """Nothing new is put there."""
        cluster, floor, place = self._nodes[name]
        floor.pool.close(place)
        self.routing.changed((cluster,))

    def uncordon(self, name: str) -> None:
        """It is used again."""
        cluster, floor, place = self._nodes[name]
        cluster.keep(floor, place)
        floor.pool.open(place)
        self._touch(cluster)

    def drain(self, name: str) -> None:
        """Cordoned, and emptied with the next plan: its jobs move, shrink, or at last wait."""
        cluster, floor, place = self._nodes[name]
        floor.pool.close(place)
        cluster.drain(floor, place)
        self._touch(cluster)

    def reachable(self, region: str, is_so: bool) -> None:
        """A region that is cut off goes on alone: nothing is sent there, and nothing is taken from there."""
        (self.routing.cut_off.discard if is_so else self.routing.cut_off.add)(region)

    # Jobs.

    def would(self, ask: Ask) -> Admission:
        """As what a job would be admitted now; nothing changes."""
        return self.routing.admit(ask)[0]

    def submit(self, now_s: float, ask: Ask) -> Admission:
        """A job wants to run. ValueError: there is one with that id."""
        if ask.job_id in self.jobs:
            raise ValueError(f"job {ask.job_id} is there already")
        admission, cluster, promised = self.routing.admit(ask)
        if admission.tier is None or cluster is None:
            return admission
        job = Job(ask, admission.tier, now_s)
        if promised is not None:
            self._promise(job, promised, 1)
        self.jobs[ask.job_id] = job
        self._enter(job, cluster, now_s)
        return admission

    def ended(self, now_s: float, job_id: str, done: bool = True) -> None:
        """It wants nothing any more. ``done``: it came to its own end, which teaches what such jobs take."""
        job = self.jobs.pop(job_id)
        cluster = self._home.pop(job_id)
        if done:
            self.judge.learned.ended(job.ask, job.work(now_s))
        if job.runs:
            self._borrowing.used(job, -job.devices)
        cluster.remove(job)
        self._borrowing.leave(job)
        if job.promised is not None:
            self._promise(job, job.promised, -1)
        job.floor, job.sharing, job.review_s = None, 0, NEVER
        self._touch(cluster)

    def progress(
        self, now_s: float, job_id: str, efficiency: Mapping[int, float], snapshot_bytes: int | None = None
    ) -> None:
        """What was measured. ``efficiency``: ranks a device -> progress of a device over that with one
        rank."""
        job = self.jobs[job_id]
        job.efficiency = dict(efficiency)
        if snapshot_bytes is not None:
            job.snapshot_bytes = snapshot_bytes
        if job.runs:
            job.settle(now_s)
            job.rate = job.expected_rate(job.sharing, self.settings.costs.splice)

    def observed(self, now_s: float, job_id: str, grant: Grant | None) -> None:
        """What it really has. Devices that others have by the books are taken from those, with the next
        plan."""
        job, cluster = self.jobs[job_id], self._home[job_id]
        if grant is not None:
            self._adopt(job, cluster, grant, now_s)
        elif job.runs:
            assert job.floor is not None
            job.floor.lift(job)
            self._forget(job, now_s)
            cluster.add(job, now_s)
        self._touch(cluster)

    def quota(self, path: str, quota: Quota | None) -> None:
        """A project's share; None: it has none any more."""
        if quota is None:
            self.projects.quotas.pop(path, None)
        else:
            self.projects.quotas[path] = quota
        self._borrowing.next_s = 0.0
        self._touched.update(dict.fromkeys(self.clusters.values()))

    # Answers.

    def decide(self, now_s: float) -> Plan:
        """What to do now; it is taken as done."""
        for cluster, at_s in self._wakes.items():
            if at_s <= now_s:
                self._touch(cluster)
        self._borrowing.settle(self._rerank, self.routing.devices, now_s)
        done = list(self._touched)
        for cluster in done:
            self._wakes[cluster] = cluster.decide(now_s)
        self._touched.clear()
        self.routing.changed(done)
        wake_s = self._send(done, now_s) if len(self.clusters) > 1 else NEVER
        plan, self._hand.plan = self._hand.plan, Plan()
        wake_s = min(wake_s, self._borrowing.next_s, *self._wakes.values())
        plan.wake_s = None if wake_s == NEVER else wake_s
        return plan

    def full_pass(self, now_s: float, region: str = "") -> Plan:
        """As `decide`, but everything (of a region) is looked at again, whatever has happened to it."""
        for cluster in self.clusters.values():
            if not region or cluster.region == region:
                cluster.rank_anew(now_s)
                self._touch(cluster)
        return self.decide(now_s)

    def why(self, job_id: str) -> Cause | Waiting | None:
        """What a job waits for, or why it has what it has."""
        job = self.jobs[job_id]
        return job.cause if job.runs else self._home[job_id].why(job)

    def grant(self, job_id: str) -> Grant | None:
        """What it has, by the books."""
        return grant_of(self.jobs[job_id]) if self.jobs[job_id].runs else None

    def queue(self) -> list[str]:
        """Jobs that wait, in the order in which they go."""
        waiting = (job for job in self.jobs.values() if not job.runs)
        return [j.ask.job_id for j in sorted(waiting, key=lambda j: (j.rank, j.queued_s, j.ask.job_id))]

    def usage(self) -> list[Usage]:
        """All projects that have a quota or devices, by path."""
        return self.projects.usage(self.routing.devices())

    def copy(self) -> Scheduler:
        """For trying things out."""
        return copy.deepcopy(self)

    def on(self, name: str) -> list[Job]:
        """Who has devices of a node, by the books."""
        return list(self._nodes[name][1].on.get(self._nodes[name][2], ()))

    def check(self) -> None:
        """AssertionError: its books do not agree."""
        seen, promised = set[str](), dict[Floor, float]()
        for cluster in self.clusters.values():
            for job in cluster.jobs():
                assert job.ask.job_id not in seen, (job.ask.job_id, "is in two places")
                assert self._home[job.ask.job_id] is cluster and self.jobs[job.ask.job_id] is job
                seen.add(job.ask.job_id)
                if (on := job.promised) is not None:
                    promised[on] = promised.get(on, 0.0) + self.routing.commitment(job.ask, job.tier)
            for floor in cluster.floors.values():
                floor.check()
                assert abs(floor.promised - promised.get(floor, 0.0)) < 1e-6, "promises"
        assert seen == set(self.jobs), "a job is nowhere"

    # How.

    def _enter(self, job: Job, cluster: Cluster, now_s: float) -> None:
        self._home[job.ask.job_id] = cluster
        self._borrowing.enter(job)
        cluster.add(job, now_s)
        self._touch(cluster)

    def _transfer(self, job: Job, receiver: Cluster, now_s: float) -> None:
        giver = self._home[job.ask.job_id]
        giver.remove(job)
        self._home[job.ask.job_id] = receiver
        self.routing.changed((giver, receiver))
        job.sent_s = now_s
        if job.promised is not None:
            self._promise(job, job.promised, -1)
            self._promise(job, receiver.firmest(job), 1)
        receiver.add(job, now_s)

    def _send(self, changed: list[Cluster], now_s: float) -> float:
        """Jobs that wait to where they need not; when to look again at all clusters, while somebody waits."""
        if now_s >= self._look_s:
            changed = list(self.clusters.values())
            self._look_s = now_s + max(self.settings.spill_s, self.settings.tick_s)
        for send in (rescue, spill):
            got = send(self.clusters, changed, self._transfer, self.routing.cut_off, self.settings, now_s)
            for receiver in got:
                self._wakes[receiver] = receiver.decide(now_s)
        waits = any(cluster.waiting.count or cluster.owed for cluster in self.clusters.values())
        return self._look_s if waits else NEVER

    def _refuge(self, job: Job, now_s: float) -> bool:
        return refuge(self.clusters, job, self._home[job.ask.job_id], self.settings, now_s)

    def _touch(self, cluster: Cluster) -> None:
        self._touched[cluster] = None
        self.routing.changed((cluster,))

    def _rerank(self, job: Job, now_s: float) -> None:
        self._home[job.ask.job_id].rerank(job, now_s)
        self._touch(self._home[job.ask.job_id])

    def _promise(self, job: Job, floor: Floor, sign: int) -> None:
        size = sign * self.routing.commitment(job.ask, job.tier)
        floor.promised += size
        floor.promised_spot += size * job.ask.spot_ok
        self.projects.promise(job.ask.project, size)
        job.promised = floor if sign > 0 else None

    def _forget(self, job: Job, now_s: float) -> None:
        self._borrowing.used(job, -job.devices)
        job.settle(now_s)
        job.floor, job.spots, job.sharing, job.rate, job.slot = None, [], 0, 0.0, -1
        job.review_s, job.queued_s = NEVER, now_s

    def _adopt(self, job: Job, cluster: Cluster, grant: Grant, now_s: float) -> None:
        places = [self._nodes[name] for name in grant.nodes]
        target = places[0][0] if places else cluster
        if job.runs:
            assert job.floor is not None
            job.floor.lift(job)
            self._forget(job, now_s)
            cluster.add(job, now_s)
        if target is not cluster:
            self._transfer(job, target, now_s)
        spots = [(place, count) for (_, _, place), count in zip(places, grant.counts)]
        target.adopt(job, places[0][1] if places else next(iter(target.floors.values())), spots, grant, now_s)
