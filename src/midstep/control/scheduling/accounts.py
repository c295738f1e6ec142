"""All jobs' accounts of device time: changed with their records, kept in the database at every change."""

from __future__ import annotations

import logging
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import StateError
from midstep.control.journal import Journal
from midstep.control.scheduling.fractions import Account, lost_since_s, rates_of
from midstep.engine.record import JobRecord
from midstep.model.lifecycle import Stage
from midstep.wire.schedule import FractionView

LOG = logging.getLogger("midstep.control")
_KIND = "account"
_ACCOUNT = TypeAdapter(Account)


class Accounts:
    """Use it from one thread. What happened to a job while the controller was away is counted as if it had
    gone on as it was; what turns out to be lost is taken off then."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._accounts: dict[str, Account] = {}
        for job_id, body in journal.notes(_KIND).items():
            with suppress(ValidationError):  # of another version: it begins anew
                self._accounts[job_id] = _ACCOUNT.validate_json(body)

    def changed(self, before: JobRecord | None, after: JobRecord, now_s: float) -> None:
        """A job's record is another one."""
        rates, lost_s = rates_of(after), lost_since_s(before, after)
        account = self._accounts.get(after.job_id)
        ended = after.stage is Stage.OVER and (before is None or before.stage is not Stage.OVER)
        if account is not None and account.rates == rates and lost_s is None and not ended:
            return
        if account is None:
            account = self._accounts[after.job_id] = Account(now_s if before else after.submitted_s)
        if lost_s is not None:
            account.lose(lost_s, now_s)
        account.change(rates, now_s)
        try:
            self._journal.save_note(_KIND, after.job_id, _ACCOUNT.dump_json(account).decode(), synced=False)
        except StateError as error:  # only figures: the job goes on
            LOG.warning("what job %s has received is not kept: %s", after.job_id, error)

    def of(self, record: JobRecord) -> Account:
        """One job's; an empty one if nothing is known."""
        return self._accounts.get(record.job_id) or Account(record.submitted_s)

    def pack(self, job_id: str) -> str:
        """One job's, for another controller; '': nothing is known."""
        account = self._accounts.get(job_id)
        return _ACCOUNT.dump_json(account).decode() if account is not None else ""

    def unpack(self, job_id: str, body: str) -> None:
        """What another controller knew. What cannot be read is left out."""
        with suppress(ValidationError):
            if body:
                account = self._accounts[job_id] = _ACCOUNT.validate_json(body)
                self._journal.save_note(_KIND, job_id, _ACCOUNT.dump_json(account).decode(), synced=False)

    def view(self, record: JobRecord, now_s: float) -> FractionView:
        """As users see it; of an ended job as it was then."""
        until_s = now_s if record.ended_s is None else min(now_s, record.ended_s)
        return self.of(record).view(until_s, record.spec.tier.guarantee)
