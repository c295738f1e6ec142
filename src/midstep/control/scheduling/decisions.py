"""What was decided about each job, and why: typed, written down when it changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from midstep.wire.schedule import DecisionView

KEPT = 200  # decisions a job


@dataclass(frozen=True, slots=True)
class Decision:
    """``action``: wait, start, resize, suspend, migrate, refuse. ``reason``: the type of the reason."""

    action: str
    reason: str
    message: str
    facts: Mapping[str, str]

    @classmethod
    def of(cls, action: str, reason: object) -> Decision:
        """From a typed reason: a dataclass whose ``str`` is a sentence."""
        facts: dict[str, str] = {}
        if is_dataclass(reason) and not isinstance(reason, type):
            facts = {field.name: _plain(getattr(reason, field.name)) for field in fields(reason)}
        return cls(action, code_of(reason), str(reason), facts)

    def same(self, other: DecisionView | None) -> bool:
        """Whether it says nothing new after that one. Figures may change while the reason does not."""
        return other is not None and (other.action, other.reason) == (self.action, self.reason)


def code_of(reason: object) -> str:
    """``NoCapacity`` -> ``no_capacity``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(reason).__name__).lower()


def _plain(value: object) -> str:
    if isinstance(value, tuple | list | frozenset | set):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return "" if value is None else str(value)
