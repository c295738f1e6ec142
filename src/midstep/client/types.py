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
    MemoryView,
    MetricsView,
    MigrateRequest,
    MoveView,
    NodeView,
    PointView,
    RankView,
    ResizeRequest,
    SharesView,
    SizeView,
)

__all__ = [
    "CheckpointRule",
    "CheckpointView",
    "DeviceView",
    "EventView",
    "Health",
    "JobRequest",
    "JobView",
    "LogView",
    "MemoryView",
    "MetricsView",
    "MigrateRequest",
    "MoveView",
    "NodeView",
    "PointView",
    "RankView",
    "ResizeRequest",
    "SharesView",
    "SizeView",
]
