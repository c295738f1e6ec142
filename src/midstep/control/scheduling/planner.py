"""The plan is made and applied between two events, in one go; still, each part is verified.

First what people asked for (drains, moves, sizes, places): `policy/place.py` finds free devices. Then the
policy's scheduler decides about all other jobs; which devices exactly, and which ranks, is placed within
the nodes that it names. Where a node cannot save jobs (no CRIU), nothing is moved but by hand: there all jobs
are only placed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from midstep.control.errors import Rejected, StateError
from midstep.control.fleet import Fleet
from midstep.control.scheduling import causes, scheduler
from midstep.control.scheduling.cordons import Drain
from midstep.control.scheduling.costs import measured_costs
from midstep.control.scheduling.decisions import Decision, code_of
from midstep.control.scheduling.draining import Leaving, leaving
from midstep.control.scheduling.notebook import Notebook
from midstep.control.scheduling.pilot import Pilot, World
from midstep.control.scheduling.quotas import Quotas
from midstep.control.scheduling.steering import Steering
from midstep.control.service import Service
from midstep.engine.check import verify
from midstep.engine.errors import EngineError
from midstep.engine.events import Event, NotPlaced, Placed
from midstep.engine.record import JobRecord
from midstep.model.job import JobSpec
from midstep.model.tiers import Tier
from midstep.policy.asks import Settings
from midstep.policy.picture import Start, Want
from midstep.policy.place import plan
from midstep.policy.reasons import NodeDown, NoNodes
from midstep.policy.units import Homes, homes_for
from midstep.wire.metrics import SizeView

LOG = logging.getLogger("midstep.control")
_WAKE_S = 2.0  # while something is under way that no event tells of


class Planner:
    """Makes plans whenever something that matters has changed, and lets the engine take them."""

    def __init__(
        self, service: Service, fleet: Fleet, notebook: Notebook, quotas: Quotas, rest_s: float
    ) -> None:
        self._service, self._fleet, self._notebook, self._quotas = service, fleet, notebook, quotas
        # Jobs that wait look at other regions at once: carrying what they have there is weighed all the same.
        costs = measured_costs(service.records.values())
        self.pilot = Pilot(Settings(costs, settle_s=round(rest_s), spill_s=0))
        self._steering = Steering(self)
        self.measured: Callable[[str], tuple[SizeView, ...]] = lambda _: ()
        self.has_others = False  # regions with controllers of their own
        self.offered: dict[str, str] = {}  # jobs that must leave their nodes, and have no place here
        service.on_plan = self.plan

    @property
    def steers(self) -> bool:
        """Whether the policy's scheduler decides: everything can be saved everywhere."""
        return not any(status.node.freezes_in_place for status in self._fleet.nodes.values())

    def world(self) -> World:
        """Everything that matters, as it is now."""
        service, fleet = self._service, self._fleet
        return World(
            service.now_s(),
            service.records,
            fleet.nodes,
            fleet.cordons.names,
            dict(self._quotas.all),
            self.measured,
        )

    def admit(self, spec: JobSpec, tier: Tier | None) -> tuple[JobSpec, Decision | None]:
        """The spec with the tier that its job is admitted as, and why it is not the one that was hoped for.
        ``tier`` None: standard if that can be kept, else basic. Raises Rejected."""
        if not self.steers or not self._fleet.nodes:
            return spec, None
        self.pilot.tell(self.world())
        answer = self.pilot.would(spec, or_basic=tier is None)
        if answer.tier is None:
            words = f"a {spec.tier} job like this cannot be promised its share now"
            hint = "`midstep run --tier basic`, or leave --tier out: then it runs as basic"
            raise Rejected(409, code_of(answer.why), words, str(answer.why), hint)
        made = Decision.of("admit", answer.why) if answer.why is not None else None
        return replace(spec, tier=answer.tier), made

    def plan(self) -> None:
        """Do everything that is to be done now."""
        drains = self._fleet.cordons.drains
        self.offered = {}
        for node, drain in drains.items():
            self._empty(node, drain)
        if self.steers:
            self.pilot.tell(self.world())
        self._place()
        wake_s = self._steering.steer() if self.steers else None
        if (
            drains or self.pilot.todo or self.pilot.rests(self._service.now_s())
        ):  # what failed is tried again, and deadlines pass
            soon_s = self._service.now_s() + _WAKE_S
            wake_s = soon_s if wake_s is None else min(wake_s, soon_s)
        self._service.wake_s = wake_s

    def apply(self, record: JobRecord, event: Event, made: Decision) -> bool:
        """Let the engine take an event. Whether it did."""
        try:
            if isinstance(event, Placed):
                verify(self._service.records.values(), self._fleet.connected, record, event.placement)
            self._service.take(record.job_id, event)
        except (EngineError, StateError) as error:
            LOG.warning("job %s: %s was not done: %s", record.job_id, made.action, error)
            return False
        self.write(record.job_id, made)
        return True

    def find(self, want: Want) -> Start | object:
        """Free devices for one job, or why there are none."""
        answer = plan(scheduler.picture(self._service.records.values(), self._fleet.nodes), [want])
        return answer.starts[0] if answer.starts else answer.waits[0].reason

    def wait(self, job_id: str, reason: object) -> None:
        """A job gets nothing now."""
        try:
            self._service.take(job_id, NotPlaced(str(reason)))
        except StateError as error:
            LOG.warning("%s", error)
        self.write(job_id, Decision.of("wait", reason))

    def write(self, job_id: str, made: Decision) -> None:
        """Keep a decision."""
        self._notebook.write(job_id, self._service.now_s(), made)

    def leaving(self, node: str, drain: Drain) -> list[Leaving]:
        """What becomes of each job that is still on a node."""
        fleet, now_s = self._fleet, self._service.now_s()
        return leaving(
            node, drain, self.records.values(), fleet.nodes, fleet.cordons.names, now_s, self.has_others
        )

    def _empty(self, node: str, drain: Drain) -> None:
        tried: set[str] = set()
        while True:  # each that goes takes devices: the next one is looked for in what is left
            new = [one for one in self.leaving(node, drain) if one.job_id not in tried]
            if not new:
                return
            one = new[0]
            tried.add(one.job_id)
            if one.offered:
                self.offered[one.job_id] = node
            if one.event is not None:
                self.apply(self.records[one.job_id], one.event, Decision.of("migrate", one.cause))
            elif one.state != "moving":
                self.write(one.job_id, Decision.of("wait", one.cause))

    def _place(self) -> None:
        """What people asked for; without the policy's scheduler, everything that waits."""
        records, cordoned = list(self._service.records.values()), self._fleet.cordons.names
        if self.steers:
            records_here = [r for r in records if not (r.waits and self.pilot.knows(r.job_id))]
        else:
            records_here = records
        wanted = scheduler.wants(records_here, cordoned)
        if not wanted:
            return
        answer = plan(scheduler.picture(records, self._fleet.nodes), wanted)
        for start in answer.starts:
            self._start(start)
        by_id = {want.job_id: want for want in wanted}
        for wait in answer.waits:
            self.wait(wait.job_id, self._or_cordoned(by_id[wait.job_id], wait.reason))

    def _start(self, start: Start) -> None:
        record, placement = self._service.records[start.job_id], start.placement
        nodes = tuple(place.node for place in placement.nodes)
        cause = causes.Placed(record.spec.amount(placement.devices), nodes, placement.region)
        action = "start" if record.waits else "resize" if record.would_resize else "migrate"
        event = Placed(placement, start.seen, start.in_place, start.carries)
        self.apply(record, event, Decision.of(action, cause))

    def better(self, record: JobRecord, reason: object) -> object:
        """The scheduler knows no difference between a node that is cordoned and one that is full."""
        want = scheduler.want_now(record, self._fleet.cordons.names) if self._fleet.cordons.names else None
        if want is None:
            return reason
        found = self._or_cordoned(want, self.find(want))
        return found if isinstance(found, causes.Cordoned) else reason

    def _or_cordoned(self, want: Want, reason: object) -> object:
        """Cordons are why there are no nodes."""
        cordoned = tuple(name for name in self._fleet.cordons.names if self._permitted(want, name))
        no_node = isinstance(reason, NoNodes | NodeDown)
        return causes.Cordoned(cordoned) if cordoned and no_node else reason

    def _permitted(self, want: Want, name: str) -> bool:
        status = self._fleet.nodes.get(name)
        if status is None or not status.connected:
            return False
        return (want.node is None or want.node == name) and want.region in (None, status.node.region)

    def within(self, want: Want, nodes: set[str]) -> Want:
        """Only there."""
        others = set(self._fleet.nodes) - nodes
        return replace(want, never=tuple(sorted({*want.never, *others})))

    def homes(self, want: Want, region: str, nodes: set[str]) -> Homes:
        """Of a job that begins on fewer devices than it has ranks, so that it can grow in all of its region;
        (): it has them already, or gets those of the nodes that it begins on."""
        if want.homes or want.spec.devices >= want.spec.world_size:
            return want.homes
        there = [status.node for _, status in sorted(self._fleet.nodes.items())]
        here = [d.device_type for node in there if node.name in nodes for d in node.devices]
        kinds = {want.spec.device_type or (here[0] if here else "")}
        sizes = [sum(d.device_type in kinds for d in node.devices) for node in there if node.region == region]
        return homes_for(want.spec.world_size, [size for size in sizes if size])

    @property
    def records(self) -> dict[str, JobRecord]:
        """All jobs."""
        return self._service.records

    def region_of(self, node: str) -> str:
        """The region of a known node."""
        return self._fleet.nodes[node].node.region
