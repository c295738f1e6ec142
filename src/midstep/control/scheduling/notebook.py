"""Decisions as they are made: told to the history and written down when they change."""

from __future__ import annotations

import logging

from midstep.control.errors import StateError
from midstep.control.journal import Journal
from midstep.control.scheduling.decisions import KEPT, Decision
from midstep.wire.schedule import DecisionView

LOG = logging.getLogger("midstep.control")


class Notebook:
    """Use it from one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last: dict[str, DecisionView | None] = {}

    def write(self, job_id: str, at_s: float, made: Decision) -> None:
        """A decision about a job. The same one again is nothing; with other figures it is brought up to
        date."""
        last = self.last(job_id)
        if last is not None and made.same(last) and made.message == last.message:
            return
        anew = not made.same(last)
        try:
            self._journal.decide(at_s, job_id, made, anew=anew)
        except StateError as error:  # the decision stands; only its record is missing
            LOG.warning("why job %s: %s is not written down: %s", job_id, made.action, error)
        began_s = at_s if anew or last is None else last.at_s
        self._last[job_id] = DecisionView(began_s, made.action, made.reason, made.message, dict(made.facts))

    def last(self, job_id: str) -> DecisionView | None:
        """The newest one about a job."""
        if job_id not in self._last:
            found = self._journal.decisions(job_id, 1)
            self._last[job_id] = found[-1] if found else None
        return self._last[job_id]

    def read(self, job_id: str) -> list[DecisionView]:
        """All about a job, oldest first."""
        return self._journal.decisions(job_id, KEPT)
