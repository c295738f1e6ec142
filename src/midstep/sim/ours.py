"""Midstep's own policy (`midstep.policy.scheduler`) as one of the simulator's. The same object decides for
the service; here it is told what happens by the core, and its plans become orders."""

from __future__ import annotations

from midstep.policy.asks import Ask, NodeShape, Settings
from midstep.policy.asks import Costs as Prices
from midstep.policy.plan import Resize, Suspend
from midstep.policy.plan import Start as Begin
from midstep.policy.scheduler import Scheduler
from midstep.sim.costs import Costs
from midstep.sim.fleet import Fleet
from midstep.sim.policy import Decline, Grant, Move, News, Orders, Start, Stop
from midstep.sim.trace import Job


class Ours:
    """A `SimPolicy`. Jobs are elastic down to one device, and rather run without a guarantee than not at all;
    what a guarantee is refused to is told to the core."""

    name = "midstep"
    end_lag_s = 0

    def __init__(self, fleet: Fleet, costs: Costs, settings: Settings | None = None) -> None:
        self._costs, self._fleet = costs, fleet
        self.scheduler = Scheduler(settings or Settings(costs=prices(costs)))
        names: dict[str, int] = {}
        for index, node in enumerate(fleet.nodes):
            name = f"{node.region}/{node.cluster}/{node.name}"
            names[name] = index
        self._nodes, self._names = names, list(names)
        for index in range(len(fleet.nodes)):
            self._join(index)
        self._jobs: dict[str, Job] = {}

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        now_s, orders, scheduler = news.now_s, Orders(), self.scheduler
        for job, _ in news.ended:
            del self._jobs[str(job.index)]
            scheduler.ended(now_s, str(job.index))
        for node in news.back:
            self._join(node)
        for node in news.lost:
            scheduler.node_left(now_s, self._names[node])
        for node in news.noticed:
            scheduler.drain(self._names[node])
        cut = {str(job.index) for job, _ in news.cut}  # the core has stopped these already
        for job in news.arrived:
            ask = ask_of(job)
            self._jobs[ask.job_id] = job
            admission = scheduler.submit(now_s, ask)
            if admission.why is not None:
                orders.actions.append(Decline(job, str(admission.why), for_good=admission.tier is None))
        plan = scheduler.decide(now_s)
        for action in plan.actions:
            job = self._jobs[action.job_id]
            match action:
                case Begin():
                    overhead_s = self._again_s(job) if action.again else 0
                    orders.actions.append(Start(job, self._grant(action), overhead_s, action.rate))
                case Resize():
                    overhead_s = self._resize_s(job, action.across)
                    orders.actions.append(Move(job, self._grant(action), overhead_s, action.rate))
                case Suspend() if action.job_id in cut:
                    cut.discard(action.job_id)
                case Suspend():
                    rate = news.records[job.index].rate
                    orders.actions.append(Stop(job, round(self._costs.suspend_s * rate)))
        if plan.wake_s is not None:
            orders.wake_s = max(now_s + 1, int(plan.wake_s))
        return orders

    def possible(self, job: Job) -> str:
        """Why a job could never run on this fleet, or ""."""
        why = self.scheduler.routing.too_large(ask_of(job))
        return str(why) if why is not None else ""

    def _join(self, index: int) -> None:
        node = self._fleet.nodes[index]
        if node.devices:
            self.scheduler.node_joined(
                NodeShape(
                    self._names[index],
                    node.region,
                    node.cluster,
                    node.device_type,
                    node.devices,
                    node.rack,
                    node.spot,
                )
            )

    def _grant(self, action: Begin | Resize) -> Grant:
        given = action.grant
        which = (given.slot,) if given.slot >= 0 else ()
        return Grant(tuple(self._nodes[name] for name in given.nodes), given.counts, given.milli, which)

    def _again_s(self, job: Job) -> int:
        return round(self._costs.resume_s)

    def _resize_s(self, job: Job, across: bool) -> int:
        return round(self._costs.resize_across_s if across else self._costs.resize_within_s)


def prices(costs: Costs) -> Prices:
    """The calibration, as the policy sees it."""
    return Prices(
        costs.suspend_s, costs.resume_s, costs.resize_within_s, costs.resize_across_s, costs.spliced(2)
    )


def ask_of(job: Job) -> Ask:
    """What a job of a trace asks for."""
    return Ask(
        str(job.index),
        job.devices,
        tier=job.tier,
        project=job.group,
        milli=job.milli,
        device_types=job.device_types,
        or_basic=True,
        spot_ok=job.spot_ok,
    )
