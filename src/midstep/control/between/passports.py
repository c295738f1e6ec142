"""Jobs that come from and go to the controllers of other regions, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from midstep.control.admission import check_possible
from midstep.control.errors import NotFound, Rejected
from midstep.control.fleet import Fleet
from midstep.control.journal import Journal
from midstep.control.meters import Meters
from midstep.control.scheduling.accounts import Accounts
from midstep.control.scheduling.decisions import KEPT, Decision
from midstep.control.service import Service
from midstep.control.vaults.blobs import Blobs
from midstep.engine.events import Arrived, HandedOver
from midstep.engine.facets import Parting
from midstep.engine.passport import Passport, passport_of
from midstep.engine.record import JobRecord
from midstep.policy.picture import Want
from midstep.wire.between import LeaveRequest
from midstep.wire.schedule import DecisionView

_REFUSED = "turned away"  # a note's kind: job -> the hops of the passport that will never be taken


@dataclass(frozen=True, slots=True)
class Luggage:
    """A passport, and what only people and the scheduler look at; '': nothing is known."""

    passport: Passport
    account: str = ""
    measured: str = ""
    decisions: tuple[DecisionView, ...] = ()


_LUGGAGE = TypeAdapter(Luggage)
_HOPS = TypeAdapter(int)


class Border:
    """Use it from one thread. Its methods raise Rejected, NotFound and StateError."""

    def __init__(
        self,
        service: Service,
        fleet: Fleet,
        journal: Journal,
        blobs: Blobs,
        accounts: Accounts,
        meters: Meters,
    ) -> None:
        self._service, self._fleet, self._journal, self._blobs = service, fleet, journal, blobs
        self._accounts, self._meters = accounts, meters

    async def out(self, job_id: str) -> tuple[bytes, int]:
        """Give a job away; again: the same passport. With its hops."""
        record = await self._service.ask(job_id, HandedOver())
        assert record.parting is not None
        passport = passport_of(record, self._fleet.regions[0], record.parting)
        known = (self._accounts.pack(job_id), self._meters.pack(job_id))
        luggage = Luggage(passport, *known, tuple(self._journal.decisions(job_id, KEPT)))
        return _LUGGAGE.dump_json(luggage), passport.hops

    def draft(self, record: JobRecord, request: LeaveRequest) -> bytes:
        """The passport that a job would be given now."""
        now_s, why = self._service.now_s(), request.why
        parting = Parting(request.region, now_s, why=why, node=request.node, devices=request.devices)
        return _LUGGAGE.dump_json(Luggage(passport_of(record, self._fleet.regions[0], parting)))

    def check(self, body: bytes) -> None:
        """Whether a job could ever run here, and its node takes jobs now."""
        passport = _read(body).passport
        check_possible(_want(passport), self._fleet)
        if passport.node is not None:
            self._fleet.cordons.refuse(passport.node)

    async def take_in(self, body: bytes) -> JobRecord:
        """Take a job that was given away. What is refused once is refused for ever, so that who gave it away
        may have it back."""
        luggage = _read(body)
        passport, records = luggage.passport, self._service.records
        known = records.get(passport.job_id)
        if known is not None and known.hops >= passport.hops:
            return known
        refused = self._journal.notes(_REFUSED).get(passport.job_id)
        if refused is not None and _HOPS.validate_json(refused) >= passport.hops:
            raise _turned_away("it was refused before")
        if known is not None and not known.away:
            self._refuse(passport, f"there is another job {passport.job_id}")
        self._need_blob(passport)
        try:
            check_possible(_want(passport), self._fleet)
        except Rejected as error:
            self._refuse(passport, error.problem.title)
        record = await self._service.ask(passport.job_id, Arrived(passport))
        self._unpack(luggage)
        return record

    def _refuse(self, passport: Passport, why: str) -> NoReturn:
        note = _HOPS.dump_json(passport.hops).decode()
        self._journal.save_note(_REFUSED, passport.job_id, note)  # before anybody hears of it
        raise _turned_away(why)

    def _need_blob(self, passport: Passport) -> None:
        blob = passport.spec.workdir_blob
        if blob is None:
            return
        try:
            self._blobs.path(blob)
        except NotFound:
            raise Rejected(409, "no_blob", f"its work directory {blob} is not here yet", blob) from None

    def _unpack(self, luggage: Luggage) -> None:
        job_id = luggage.passport.job_id
        self._accounts.unpack(job_id, luggage.account)
        self._meters.unpack(job_id, luggage.measured)
        known = {(one.at_s, one.action) for one in self._journal.decisions(job_id, KEPT)}
        for one in luggage.decisions:
            if (one.at_s, one.action) not in known:
                made = Decision(one.action, one.reason, one.message, one.facts)
                self._journal.decide(one.at_s, job_id, made, anew=True)


def _read(body: bytes) -> Luggage:
    try:
        return _LUGGAGE.validate_json(body)
    except ValidationError as error:
        words = "the passport cannot be read: are these controllers of the same version?"
        raise Rejected(400, "bad_request", words, str(error.errors()[0]["msg"])) from None


def _want(passport: Passport) -> Want:
    spec, restores = passport.spec, passport.snapshot is not None
    sized = replace(spec, devices=spec.least if passport.asked is None else passport.asked)
    homes, node = passport.homes, passport.node
    return Want("", sized, 0.0, homes=homes, node=node, region=spec.region, restores=restores)


def _turned_away(why: str) -> Rejected:
    return Rejected(422, "turned_away", "this region does not take the job", why)
