"""The types of the HTTP interface, for those who may not import the wire."""

from __future__ import annotations

from midstep.model.job import CheckpointRule
from midstep.wire.api import (
    CheckpointView,
    DeviceView,
    EventView,
    Health,
    JobRequest,
    JobView,
    LogView,
    MigrateRequest,
    MoveView,
    NodeView,
    RankView,
    ResizeRequest,
)
from midstep.wire.metrics import MemoryView, MetricsView, PointView, SharesView, SizeView
from midstep.wire.plan import PlanRequest, PlanView, StepView
from midstep.wire.schedule import (
    DecisionView,
    DrainRequest,
    DrainView,
    FractionView,
    LeavingView,
    QueueView,
    QuotaRequest,
    QuotaView,
    WhyView,
)

__all__ = [
    "CheckpointRule",
    "CheckpointView",
    "DecisionView",
    "DeviceView",
    "DrainRequest",
    "DrainView",
    "EventView",
    "FractionView",
    "Health",
    "JobRequest",
    "JobView",
    "LeavingView",
    "LogView",
    "MemoryView",
    "MetricsView",
    "MigrateRequest",
    "MoveView",
    "NodeView",
    "PlanRequest",
    "PlanView",
    "PointView",
    "QueueView",
    "QuotaRequest",
    "QuotaView",
    "RankView",
    "ResizeRequest",
    "SharesView",
    "SizeView",
    "StepView",
    "WhyView",
]
