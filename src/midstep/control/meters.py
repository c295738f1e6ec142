"""All jobs' tallies: taken from the agents' sessions, shown at the desk, kept in the journal now and then."""

from __future__ import annotations

import logging
from contextlib import suppress

from pydantic import ValidationError

from midstep.control.errors import StateError
from midstep.control.journal import KEPT, Journal
from midstep.control.metrics import Kept, Tally, points_of, shares_of, sizes_of
from midstep.control.scheduling.accounts import Accounts
from midstep.control.service import Service
from midstep.engine.record import JobRecord
from midstep.wire.agent import USAGE_VERSION, Measured
from midstep.wire.metrics import MetricsView, SizeView

LOG = logging.getLogger("midstep.control")
_KEEP_S = 30.0


class Meters:
    """Use it from one thread. No reading changes a record or wakes the engine."""

    def __init__(self, journal: Journal, service: Service, accounts: Accounts) -> None:
        self._journal, self._service, self._accounts = journal, service, accounts
        self._tallies = {job_id: Tally(kept) for job_id, kept in journal.metrics().items()}
        self._kept_s: dict[str, float] = {}

    def take(self, node: str, measured: Measured) -> None:
        """What a node says; of jobs that are not known, or in another version, nothing is taken."""
        if measured.version != USAGE_VERSION:
            return
        now_s = self._service.now_s()
        for usage in measured.jobs:
            record = self._service.records.get(usage.job_id)
            if record is None:
                continue
            tally = self._tallies.setdefault(usage.job_id, Tally())
            devices = record.devices if usage.epoch == record.epoch else 0
            known = len(sizes_of(tally.kept.rates))
            taken = tally.take(node, usage, devices, now_s)
            due = usage.last or now_s - self._kept_s.get(usage.job_id, 0.0) >= _KEEP_S
            if taken and (due or len(sizes_of(tally.kept.rates)) != known):  # a new size is worth it at once
                self._keep(usage.job_id, tally.kept, now_s)

    def view(self, record: JobRecord, history: bool = True) -> MetricsView:
        """What is known of a job."""
        tally = self._tallies.get(record.job_id, Tally())
        kept, now = tally.kept, tally.recent(self._service.now_s())
        return MetricsView(
            job_id=record.job_id,
            name=record.spec.name,
            state=record.shown.value,
            devices=record.spec.amount(record.devices),
            world_size=record.spec.world_size,
            at_s=kept.at_s,
            steps=kept.steps,
            counted=kept.counted,
            steps_per_s=now.steps / now.seconds if now else None,
            shares=shares_of(now) if now else None,
            reduced_bytes=kept.reduced_bytes,
            reduced_bytes_per_s=now.reduced_bytes / now.seconds if now else None,
            computing_s=kept.computing_s,
            reducing_s=kept.reducing_s,
            waiting_s=kept.waiting_s,
            queueing_s=kept.queueing_s,
            memory=kept.memory,
            sizes=sizes_of(kept.rates),
            history=points_of(tally) if history else (),
            received=self._accounts.view(record, self._service.now_s()),
        )

    def sizes(self, job_id: str) -> tuple[SizeView, ...]:
        """What is known of a job at each number of devices that it has had."""
        tally = self._tallies.get(job_id)
        return sizes_of(tally.kept.rates) if tally is not None else ()

    def pack(self, job_id: str) -> str:
        """What is known of a job, for another controller; '': nothing."""
        tally = self._tallies.get(job_id)
        return KEPT.dump_json(tally.kept).decode() if tally is not None else ""

    def unpack(self, job_id: str, body: str) -> None:
        """What another controller knew. What cannot be read is left out."""
        with suppress(ValidationError):
            if body:
                self._tallies[job_id] = Tally(KEPT.validate_json(body))
                self._keep(job_id, self._tallies[job_id].kept, self._service.now_s())

    def close(self) -> None:
        """Keep what is not kept yet; before the journal closes."""
        for job_id in self._kept_s:
            self._keep(job_id, self._tallies[job_id].kept, self._service.now_s())

    def _keep(self, job_id: str, kept: Kept, now_s: float) -> None:
        self._kept_s[job_id] = now_s
        try:
            self._journal.save_metrics(job_id, kept)
        except StateError as error:  # it is only figures: the job goes on
            LOG.warning("the figures of job %s are not kept: %s", job_id, error)
