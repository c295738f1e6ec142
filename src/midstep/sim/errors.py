"""What can be wrong with what a user gave the simulator.

SimError
    TraceError     the trace
    FleetError     FLEET.yaml
    CostsError     a calibration file
    UnknownName    a policy or a placement
    Stuck          a policy left jobs waiting for ever, or gave what there is not: a fault of the policy
"""

from __future__ import annotations


class SimError(Exception):
    """``hint``: what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TraceError(SimError):
    """A trace cannot be meant so; names rows and columns."""


class FleetError(SimError):
    """A fleet file cannot be meant so; names lines and columns."""


class CostsError(SimError):
    """A calibration file cannot be meant so; names lines and columns."""


class UnknownName(SimError):
    """There is no such policy or placement."""


class Stuck(SimError):
    """A policy did what cannot be."""
