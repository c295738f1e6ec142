"""The service's own first scheduler (`policy.place`): by tier, then by submission; what does not fit holds
nobody back, and nothing that runs is disturbed. It takes devices anywhere, so it looks at all that waits each
time: for small fleets."""

from __future__ import annotations

from collections.abc import Sequence

from midstep.model.fleet import Device, Node
from midstep.model.job import JobSpec, Placement
from midstep.model.tiers import Tier
from midstep.policy.picture import DeviceKey, Picture, Want
from midstep.policy.place import hopeless, plan
from midstep.sim.fleet import Fleet
from midstep.sim.policy import Grant, News, Orders, Start
from midstep.sim.rivals.again import overhead_s
from midstep.sim.trace import MILLI, Job


class Queue:
    """See the module."""

    name = "queue"
    end_lag_s = 0

    def __init__(self, fleet: Fleet, nodes: Sequence[int]) -> None:
        self._nodes = {index: _node(fleet, index) for index in nodes if fleet.nodes[index].devices}
        self._numbers = {node.name: index for index, node in self._nodes.items()}
        self._up = dict(self._nodes)
        self._used: dict[DeviceKey, str] = {}
        self._waiting: dict[int, Job] = {}

    def possible(self, job: Job) -> str:
        """See `Placer`."""
        if not job.devices:
            return ""
        if job.milli < MILLI:
            return f"asks for {job.size:g} of a device, and this policy gives whole ones only"
        alone = [w for w in _wants(job) if hopeless(Picture(tuple(self._nodes.values())), w) is None]
        total = sum(len(node.devices) for node in self._nodes.values())
        return "" if alone else f"asks for {job.devices} devices; there are {total} in all"

    def decide(self, news: News) -> Orders:
        """See `SimPolicy`."""
        for job, _ in (*news.ended, *news.cut):
            self._used = {key: owner for key, owner in self._used.items() if owner != str(job.index)}
        for node in news.lost:
            self._up.pop(node, None)
        for node in (node for node in news.back if node in self._nodes):
            self._up[node] = self._nodes[node]
        for job in (*(job for job, _ in news.cut), *news.arrived):
            self._waiting[job.index] = job
        orders = Orders()
        for job in [job for job in self._waiting.values() if not job.devices]:
            self._start(job, Grant((), ()), news, orders)
        if self._waiting and len(self._used) < sum(len(node.devices) for node in self._up.values()):
            several = any(len(job.device_types) > 1 for job in self._waiting.values())
            turns = [[job] for job in sorted(self._waiting.values(), key=_turn)] if several else [None]
            for turn in turns:  # one by one where a job may have one type or another
                wants = [want for job in turn or self._waiting.values() for want in _wants(job)]
                for start in plan(Picture(tuple(self._up.values()), self._used), wants).starts:
                    self._place(int(start.job_id), start.placement, news, orders)
        return orders

    def _place(self, index: int, placement: Placement, news: News, orders: Orders) -> None:
        job = self._waiting.get(index)
        if job is None:
            return  # on devices of another of its types already
        keys = {(p.node, i) for p in placement.nodes for rank in p.ranks for i in rank.devices}
        self._used |= dict.fromkeys(sorted(keys), str(index))
        names = [place.node for place in placement.nodes]
        counts = [sum(name == node for node, _ in keys) for name in names]
        self._start(job, Grant(tuple(self._numbers[name] for name in names), tuple(counts)), news, orders)

    def _start(self, job: Job, grant: Grant, news: News, orders: Orders) -> None:
        del self._waiting[job.index]
        orders.actions.append(Start(job, grant, overhead_s(news.records[job.index])))


def _node(fleet: Fleet, index: int) -> Node:
    node = fleet.nodes[index]
    devices = tuple(Device(i, node.device_type) for i in range(node.devices))
    # (The order of nodes is that of the fleet, whatever their names.)
    return Node(f"{index:06} {node.name}", node.region, "", devices, node.cluster)


def _turn(job: Job) -> tuple[int, int]:
    return list(Tier).index(job.tier), job.index


def _wants(job: Job) -> list[Want]:
    """One for each type of device that it may have, or one for any."""
    return [
        Want(
            str(job.index),
            JobSpec((), job.devices, job.devices, tier=job.tier, device_type=kind),
            job.submit_s,
        )
        for kind in job.device_types or (None,)
    ]
