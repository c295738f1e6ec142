"""When running jobs are saved, and what would be lost of each now. Pure: the service asks on every tick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from midstep.engine.checkpoints import possible
from midstep.engine.record import JobRecord
from midstep.model.job import CheckpointRule
from midstep.model.lifecycle import Stage
from midstep.policy.intervals import interval, loss_rate
from midstep.vault.archive.retention import KEEP
from midstep.wire.api import CheckpointView

_MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Timetable:
    """The fleet's rule, and how often its nodes lose what runs on them (a second)."""

    rule: CheckpointRule
    rate: float

    @classmethod
    def of(cls, rule: CheckpointRule, records: Iterable[JobRecord], now_s: float) -> Timetable:
        """By everything that the jobs of this fleet have seen."""
        known = list(records)
        node_s = sum(record.exposed_s + _exposed_now_s(record, now_s) for record in known)
        return cls(rule, loss_rate(sum(record.losses for record in known), node_s))

    def every_s(self, record: JobRecord) -> tuple[float | None, str]:
        """How often a job is saved, and why; None: it is not."""
        if record.in_place:
            return None, "none: its nodes have no CRIU"
        nodes = len(record.nodes) or 1
        own = record.spec.checkpoints
        if own is not None and own == CheckpointRule(keep=own.keep) and own.keep is not None:
            own = None
        found = interval(own, self.rule, record.saves.pause_s, nodes, self.rate, record.saves.beside_s)
        if found.seconds is None or not record.saves.refused:
            return found.seconds, found.why
        times = record.saves.refused
        words = f"{times} attempt{'s' if times > 1 else ''} failed: less often"
        return found.seconds * 2 ** min(times, _MOST_DOUBLINGS), words

    def next_s(self, record: JobRecord) -> float | None:
        """When it will be saved next, as far as is known now."""
        every_s, _ = self.every_s(record)
        if every_s is None or record.stage is not Stage.RUNNING or record.saves.since_s is None:
            return None
        return max(record.saves.since_s, record.saves.tried_s or 0.0) + every_s

    def due(self, record: JobRecord, now_s: float) -> bool:
        """Whether to save it now."""
        if not possible(record):
            return False
        next_s = self.next_s(record)
        return next_s is not None and next_s <= now_s

    def view(self, record: JobRecord, now_s: float) -> CheckpointView:
        """As users see it."""
        every_s, why = self.every_s(record)
        saves = record.saves
        runs = record.placement is not None and record.ran and not record.shown.ended
        at_risk_s = max(0.0, now_s - saves.since_s) if runs and saves.since_s is not None else 0.0
        return CheckpointView(
            every_s,
            why,
            saves.pause_s,
            self.next_s(record),
            at_risk_s,
            saves.taken - saves.refused,
            kept(record.spec.checkpoints, self.rule),
        )


def kept(rule: CheckpointRule | None, fleet: CheckpointRule) -> int:
    """How many of a living job's snapshots stay in the archive."""
    own = rule.keep if rule is not None else None
    return own or fleet.keep or KEEP


def _exposed_now_s(record: JobRecord, now_s: float) -> float:
    if record.stage is not Stage.RUNNING or not record.stage_s:
        return 0.0
    return max(0.0, now_s - record.stage_s) * len(record.nodes)
