"""What a job is promised, and how urgent it is."""

from __future__ import annotations

import enum


class Priority(enum.StrEnum):
    """Orders the queue within a tier."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def turn(self) -> int:
        """Who goes first has the lowest."""
        return _PRIORITIES.index(self)


class Tier(enum.StrEnum):
    """The GPU fraction that a job is promised; see `guarantee`."""

    PREMIUM = "premium"
    STANDARD = "standard"
    BASIC = "basic"

    @property
    def guarantee(self) -> float:
        """Useful device time received / asked for, over a sliding hour; 0 is best effort."""
        return _GUARANTEE[self]

    @property
    def turn(self) -> int:
        """Who goes first has the lowest."""
        return _TIERS.index(self)


_GUARANTEE = {Tier.PREMIUM: 0.95, Tier.STANDARD: 0.70, Tier.BASIC: 0.0}
_TIERS = (Tier.PREMIUM, Tier.STANDARD, Tier.BASIC)
_PRIORITIES = (Priority.HIGH, Priority.MEDIUM, Priority.LOW)
