"""Where requests about the scheduler are answered, as `desk.py` answers those about jobs.

Every method may raise Rejected, NotFound and StateError.
"""

from __future__ import annotations

from dataclasses import replace

from midstep.control.admission import spec_of
from midstep.control.errors import Rejected, invalid
from midstep.control.lookup import find
from midstep.control.region import Region
from midstep.control.scheduling import quotas
from midstep.control.scheduling.cordons import Drain
from midstep.control.scheduling.draining import drain_view, still_there
from midstep.control.scheduling.forecast import of_drain, of_submission
from midstep.control.scheduling.needs import would_run_if
from midstep.control.scheduling.scheduler import turn
from midstep.control.views import node_views
from midstep.engine.effects import Log
from midstep.engine.record import JobRecord
from midstep.wire.api import NodeView
from midstep.wire.plan import PlanRequest, PlanView
from midstep.wire.schedule import DrainView, QueueView, QuotaRequest, QuotaView, WhyView

_LONGEST_S = 366 * 86400.0


class Office:
    """What users may ask of a region's scheduler."""

    def __init__(self, region: Region) -> None:
        self._region, self._service = region, region.service

    def queue(self) -> list[QueueView]:
        """The jobs that wait for devices, in the order in which they are served."""
        waiting = [record for record in self._service.records.values() if record.waits]
        planner = self._region.planner
        order = {job_id: place for place, job_id in enumerate(planner.pilot.scheduler.queue())}
        waiting.sort(key=lambda record: (order.get(record.job_id, -1), turn(record)))
        return [self._queued(place, record) for place, record in enumerate(waiting, 1)]

    def why(self, asked: str) -> WhyView:
        """What was decided about a job, and what would have to change."""
        region = self._region
        records = self._service.records
        record = find(records, asked)
        cordoned = region.fleet.cordons.names
        return WhyView(
            record.job_id,
            record.spec.name,
            record.shown.value,
            record.spec.amount(record.devices),
            record.spec.amount(record.wanted),
            tuple(region.notebook.read(record.job_id)),
            would_run_if(record, records.values(), region.fleet.nodes, cordoned),
        )

    def quotas(self) -> list[QuotaView]:
        """All projects."""
        usage = self._region.planner.pilot.scheduler.usage()
        fair = {one.project: one.fair for one in usage if one.fair is not None}
        return quotas.views(self._region.quotas.all, self._service.records.values(), fair)

    def set_quota(self, project: str, request: QuotaRequest) -> QuotaView:
        """Let a project count on so many devices."""
        self._region.quotas.put(project, quotas.Quota(request.devices, request.weight))
        self._note(f"the quota of {project} is {request.devices} devices, weight {request.weight:g}")
        return next(view for view in self.quotas() if view.project == project)

    def forget_quota(self, project: str) -> None:
        """A project counts on nothing of its own any more."""
        self._region.quotas.forget(project)
        self._note(f"the quota of {project} is no more")

    def cordon(self, node: str) -> NodeView:
        """Place nothing new on a node. What runs there stays."""
        self._known(node)
        self._region.fleet.cordons.put(node, self._service.now_s())
        self._note("cordoned: nothing new is placed there", node)
        return self._node(node)

    def uncordon(self, node: str) -> NodeView:
        """Let a node take jobs again; a drain ends."""
        self._known(node)
        if node not in self._region.fleet.cordons.names:
            raise Rejected(409, "not_cordoned", f"node {node} is not cordoned", "nothing was done")
        self._region.fleet.cordons.lift(node)
        self._note("takes jobs again", node)
        return self._node(node)

    def drain(self, node: str, deadline_s: float | None) -> DrainView:
        """Move everything off a node. Again: with another deadline."""
        self._known(node)
        if deadline_s is not None and not 0 <= deadline_s <= _LONGEST_S:
            raise invalid("deadline_s", f"{deadline_s:g} is not between 0 and {_LONGEST_S:g} seconds")
        now_s, cordons = self._service.now_s(), self._region.fleet.cordons
        before = cordons.drains.get(node)
        there = still_there(node, self._service.records.values())
        jobs = tuple(dict.fromkeys((*(before.jobs if before else ()), *there)))
        until_s = None if deadline_s is None else now_s + deadline_s
        cordons.put(node, now_s, Drain(before.since_s if before else now_s, until_s, jobs))
        bound = "" if deadline_s is None else f", within {deadline_s:.0f} s"
        self._note(f"is being drained of {len(there)} jobs{bound}", node)
        return self.drained(node)

    def drained(self, node: str) -> DrainView:
        """How far it is."""
        self._known(node)
        fleet, records = self._region.fleet, self._service.records
        drain = fleet.cordons.drains.get(node)
        if drain is None:
            raise Rejected(409, "not_draining", f"node {node} is not being drained", "", "`midstep drain`")
        return drain_view(node, drain, self._region.planner.leaving(node, drain), records)

    def plan(self, request: PlanRequest) -> PlanView:
        """What would happen; nothing is done."""
        if (request.submit is None) == (request.drain is None):
            raise invalid("the request", "give one of `submit` and `drain`")
        if request.drain is not None:
            self._known(request.drain)
            return of_drain(self._region.planner, request.drain)
        assert request.submit is not None
        asked = replace(request.submit, workdir_blob=None)
        spec = spec_of(asked, self._region.fleet, self._region.blobs)
        return of_submission(self._region.planner, spec, asked.tier)

    def _queued(self, place: int, record: JobRecord) -> QueueView:
        last, spec = self._region.notebook.last(record.job_id), record.spec
        return QueueView(
            place,
            record.job_id,
            spec.name,
            spec.tier,
            spec.priority,
            spec.project,
            spec.amount(spec.devices if record.asked is None else record.asked),
            spec.amount(spec.least if record.asked is None else record.asked),
            record.queued_s,
            last.reason if last is not None and last.action in ("wait", "suspend") else "",
            record.waiting,
            self._region.accounts.view(record, self._service.now_s()),
        )

    def _known(self, node: str) -> None:
        nodes = self._region.fleet.nodes
        if node not in nodes:
            known = ", ".join(sorted(nodes)) or "there are none"
            raise Rejected(404, "no_such_node", f"there is no node {node!r}", known, "`midstep nodes`")

    def _node(self, node: str) -> NodeView:
        fleet = self._region.fleet
        status = {node: fleet.nodes[node]}
        return node_views(status, self._service.records.values(), fleet.cordons.names)[0]

    def _note(self, words: str, node: str = "") -> None:
        self._region.history.note(Log("asked", words, node))
        self._service.plan_soon()
