"""The types of the HTTP interface, for those who may not import the wire."""

from __future__ import annotations

from midstep.wire.api import (
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

__all__ = [
    "DeviceView",
    "EventView",
    "Health",
    "JobRequest",
    "JobView",
    "LogView",
    "MigrateRequest",
    "MoveView",
    "NodeView",
    "RankView",
    "ResizeRequest",
]
