"""A fleet and a scheduler for tests, in few words. Jobs begin at second 0 unless time is moved on."""

from __future__ import annotations

from typing import Any

from midstep.model.tiers import Tier
from midstep.policy.asks import Ask, NodeShape, Quota, Settings
from midstep.policy.plan import Admission, Plan, Resize, Start, Suspend
from midstep.policy.scheduler import Scheduler

PREMIUM, STANDARD, BASIC = Tier.PREMIUM, Tier.STANDARD, Tier.BASIC


class World:
    """``now_s`` moves on only by `later`."""

    def __init__(self, nodes: int = 1, devices: int = 8, **settings: Any) -> None:
        self.scheduler = Scheduler(Settings(**settings))
        self.now_s = 0.0
        self.plan = Plan()
        for index in range(nodes):
            self.node(f"n{index}", devices)

    def node(self, name: str, devices: int = 8, region: str = "r", cluster: str = "c", **more: Any) -> None:
        kind = more.pop("device_type", "gpu")
        self.scheduler.node_joined(NodeShape(name, region, cluster, kind, devices, **more))

    def submit(self, name: str, devices: int = 1, tier: Tier = BASIC, **more: Any) -> Admission:
        admission = self.scheduler.submit(self.now_s, Ask(name, devices, tier=tier, **more))
        self.decide()
        return admission

    def decide(self) -> Plan:
        self.plan = self.scheduler.decide(self.now_s)
        self.scheduler.check()
        return self.plan

    def later(self, seconds: float) -> Plan:
        """Until then, with every decision that is due on the way; the last one's plan."""
        end_s = self.now_s + seconds
        while self.plan.wake_s is not None and self.plan.wake_s <= end_s:
            self.now_s = self.plan.wake_s
            self.decide()
        self.now_s = end_s
        return self.decide()

    def ends(self, name: str) -> Plan:
        self.scheduler.ended(self.now_s, name)
        return self.decide()

    def quotas(self, **due: float) -> None:
        for path, devices in due.items():
            self.scheduler.quota(path, Quota(devices))

    def has(self, name: str) -> int:
        """Devices."""
        grant = self.scheduler.grant(name)
        return grant.devices if grant else 0

    def nodes_of(self, name: str) -> tuple[str, ...]:
        grant = self.scheduler.grant(name)
        return tuple(sorted(grant.nodes)) if grant else ()

    def did(self, name: str) -> list[str]:
        """What the last plan did to a job."""
        words = {Start: "start", Resize: "resize", Suspend: "suspend"}
        return [words[type(action)] for action in self.plan.actions if action.job_id == name]

    def why(self, name: str) -> str:
        return str(self.scheduler.why(name))
