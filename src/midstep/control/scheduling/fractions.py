"""What jobs receive of what they ask for: GPU-fraction accounting. Pure: rates and times in, sums out.

A job is owed devices while its user wants it to run: as many as it asks for (its last resize by hand, else
what it was submitted with). Suspended by its user it is owed nothing. It receives the devices that it has
while it runs: not while it waits, is suspended, moved or restored; and what is lost with its processes was
not received either. Ranks that share a device receive that one device; a job that shares one with others
receives its part.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.engine.record import Intent, JobRecord
from midstep.model.lifecycle import Stage
from midstep.wire.schedule import FractionView

HOUR_S = 3600.0
_MOST = 240  # spans that are kept; more are joined, the oldest first, so an hour becomes coarser, never wrong
_UNOWED = (Stage.ENDING, Stage.OVER)


@dataclass(frozen=True, slots=True)
class Rates:
    """Devices that a job is owed, and that it receives, from now on."""

    owed: float = 0.0
    received: float = 0.0


@dataclass(slots=True)
class Span:
    """Device-seconds owed and received from ``begin_s`` to ``end_s``, evenly."""

    begin_s: float
    end_s: float
    asked: float
    received: float

    def within(self, begin_s: float, end_s: float) -> float:
        """Which share of it lies there."""
        length_s = self.end_s - self.begin_s
        inside_s = min(self.end_s, end_s) - max(self.begin_s, begin_s)
        return max(0.0, inside_s) / length_s if length_s > 0 else 0.0


@dataclass(slots=True)
class Account:
    """One job's. ``at_s``: until when it is counted; then the rates hold."""

    at_s: float
    rates: Rates = Rates()
    asked_s: float = 0.0
    received_s: float = 0.0
    spans: list[Span] = field(default_factory=list[Span])  # of the last hour, oldest first

    def count(self, now_s: float) -> None:
        """Up to now, by the rates that held."""
        length_s = now_s - self.at_s
        if length_s <= 0:
            return
        asked, received = self.rates.owed * length_s, self.rates.received * length_s
        self.asked_s += asked
        self.received_s += received
        last = self.spans[-1] if self.spans else None
        if last is not None and last.end_s == self.at_s and _goes_on(last, self.rates):
            last.end_s, last.asked, last.received = now_s, last.asked + asked, last.received + received
        elif asked or received:
            self.spans.append(Span(self.at_s, now_s, asked, received))
        self.at_s = now_s
        self._forget(now_s - HOUR_S)

    def change(self, rates: Rates, now_s: float) -> None:
        """From now on other rates hold."""
        self.count(now_s)
        self.rates = rates

    def lose(self, since_s: float, now_s: float) -> None:
        """What was done since then was lost: it was of no use. (What is older than an hour stays counted.)"""
        self.count(now_s)
        kept: list[Span] = []
        for span in self.spans:
            lost = span.received * span.within(since_s, now_s)
            self.received_s -= lost
            kept.append(Span(span.begin_s, span.end_s, span.asked, span.received - lost))
        self.spans = kept

    def hour(self, now_s: float) -> tuple[float, float]:
        """Device-seconds asked for and received in the last hour, up to ``now_s``."""
        begin_s, ahead_s = now_s - HOUR_S, max(0.0, now_s - self.at_s)
        asked = sum(span.asked * span.within(begin_s, now_s) for span in self.spans)
        received = sum(span.received * span.within(begin_s, now_s) for span in self.spans)
        return asked + self.rates.owed * ahead_s, received + self.rates.received * ahead_s

    def view(self, now_s: float, guarantee: float) -> FractionView:
        """As users see it."""
        ahead_s = max(0.0, now_s - self.at_s)
        asked_s = self.asked_s + self.rates.owed * ahead_s
        received_s = self.received_s + self.rates.received * ahead_s
        asked, received = self.hour(now_s)
        return FractionView(
            hour=received / asked if asked > 0 else None,
            life=received_s / asked_s if asked_s > 0 else None,
            received_s=received_s,
            asked_s=asked_s,
            guarantee=guarantee,
            short_s=max(0.0, guarantee * asked - received),
        )

    def _forget(self, before_s: float) -> None:
        while self.spans and self.spans[0].end_s <= before_s:
            del self.spans[0]
        while len(self.spans) > _MOST:
            first, second = self.spans[:2]
            self.spans[:2] = [
                Span(
                    first.begin_s, second.end_s, first.asked + second.asked, first.received + second.received
                )
            ]


def rates_of(record: JobRecord) -> Rates:
    """What a job is owed and receives as it is now."""
    moves = record.intent in (Intent.RUN, Intent.MIGRATE) or record.parts
    wanted = moves and record.stage not in _UNOWED
    owed = record.spec.amount(record.spec.devices if record.asked is None else record.asked)
    runs = record.stage is Stage.RUNNING and not record.unreachable
    has = record.spec.amount(record.devices)
    return Rates(float(owed) if wanted else 0.0, float(has) if runs and wanted else 0.0)


def lost_since_s(before: JobRecord | None, after: JobRecord) -> float | None:
    """Since when a job's work was lost by this change; None: nothing was."""
    if before is None or (after.losses, after.retried) == (before.losses, before.retried):
        return None
    return before.saves.since_s if before.saves.since_s is not None else before.started_s


def _goes_on(span: Span, rates: Rates) -> bool:
    length_s = span.end_s - span.begin_s
    return span.asked == rates.owed * length_s and span.received == rates.received * length_s
