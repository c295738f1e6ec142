"""The client's calls about the scheduler. Every method may raise any ClientError."""

from __future__ import annotations

from urllib.parse import quote

from midstep.client.http import Transport
from midstep.client.types import (
    DrainRequest,
    DrainView,
    JobRequest,
    NodeView,
    PlanRequest,
    PlanView,
    QueueView,
    QuotaRequest,
    QuotaView,
    WhyView,
)


class ScheduleCalls:
    """Part of a FleetClient."""

    _transport: Transport

    def queue(self) -> list[QueueView]:
        """The jobs that wait for devices, in the order in which they are served."""
        return self._transport.get("/v1/queue", list[QueueView])

    def why(self, job: str) -> WhyView:
        """What was decided about a job, and what would have to change for it to run."""
        return self._transport.get(f"/v1/jobs/{quote(job, safe='')}/why", WhyView)

    def quotas(self) -> list[QuotaView]:
        """All projects, each before its sub-projects."""
        return self._transport.get("/v1/quotas", list[QuotaView])

    def set_quota(self, project: str, devices: int, weight: float = 1.0) -> QuotaView:
        """Let a project count on so many devices."""
        body = QuotaRequest(devices, weight)
        return self._transport.put(f"/v1/quotas/{quote(project)}", QuotaView, body)

    def forget_quota(self, project: str) -> None:
        """A project counts on nothing of its own any more."""
        self._transport.delete(f"/v1/quotas/{quote(project)}")

    def cordon(self, node: str) -> NodeView:
        """Place nothing new there."""
        return self._transport.post(f"{_node(node)}/cordon", NodeView)

    def uncordon(self, node: str) -> NodeView:
        """Let it take jobs again."""
        return self._transport.post(f"{_node(node)}/uncordon", NodeView)

    def drain(self, node: str, deadline_s: float | None = None) -> DrainView:
        """Move everything off it; what could not be moved within ``deadline_s`` is suspended."""
        return self._transport.post(f"{_node(node)}/drain", DrainView, DrainRequest(deadline_s))

    def plan_submit(self, job: JobRequest) -> PlanView:
        """What would happen if it were submitted; nothing is done."""
        return self._transport.post("/v1/plan", PlanView, PlanRequest(submit=job))

    def plan_drain(self, node: str) -> PlanView:
        """What would happen if a node were drained; nothing is done."""
        return self._transport.post("/v1/plan", PlanView, PlanRequest(drain=node))

    def drained(self, node: str) -> DrainView:
        """How far that is."""
        return self._transport.get(f"{_node(node)}/drain", DrainView)


def _node(node: str) -> str:
    return f"/v1/nodes/{quote(node, safe='')}"
