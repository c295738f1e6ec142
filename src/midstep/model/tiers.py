"""What a job is promised, and how urgent it is."""

from __future__ import annotations

import enum


class Priority(enum.StrEnum):
    """Orders the queue within a tier."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Tier(enum.StrEnum):
    """The GPU fraction that a job is promised; see `guarantee`."""

    PREMIUM = "premium"
    STANDARD = "standard"
    BASIC = "basic"

    @property
    def guarantee(self) -> float:
        """Useful device time received / asked for, over a sliding hour; 0 is best effort."""
        return _GUARANTEE[self]


_GUARANTEE = {Tier.PREMIUM: 0.95, Tier.STANDARD: 0.70, Tier.BASIC: 0.0}
