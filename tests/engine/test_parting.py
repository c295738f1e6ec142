"""A job leaves one controller for another: what each says, and that no order of messages, lost ones and
repeated ones leaves it with two owners, or with none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from midstep.engine.check import check, check_step
from midstep.engine.effects import DeleteSnapshot
from midstep.engine.errors import Refused
from midstep.engine.events import (
    Arrived,
    CancelAsked,
    Copied,
    Event,
    HandedOver,
    LeaveAsked,
    NotNeeded,
    Placed,
    ResizeAsked,
    ResumeAsked,
    Submitted,
    SuspendAsked,
    TurnedBack,
)
from midstep.engine.parting import ready
from midstep.engine.passport import Passport, passport_of
from midstep.engine.record import Intent, JobRecord, Leftover, Target
from midstep.engine.step import step
from midstep.model.job import JobSpec
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import Fault, Phase
from tests.engine.play import Play, placement


def gone(play: Play) -> Play:
    """It leaves while it runs, and stands still."""
    play.happens(LeaveAsked("west"))
    assert play.record.stage is Stage.RUNNING, "until devices are free there"
    play.happens(Copied())
    assert play.record.shown is JobState.MIGRATING and play.record.stage is Stage.DUMPING
    return play.all(Phase.DUMPED).commits().all(Phase.GONE)


def passport(play: Play) -> Passport:
    play.happens(HandedOver())
    assert play.record.parting is not None
    return passport_of(play.record, "east", play.record.parting)


def taken(given: Passport, record: JobRecord | None = None) -> JobRecord:
    stepped = step(record, Arrived(given), 5000.0)
    check([stepped.record])
    return stepped.record


def test_a_running_job_is_cut_handed_over_and_taken() -> None:
    play = gone(Play(2).runs("a", "b"))
    assert ready(play.record) and not play.record.away and play.record.intent is Intent.SUSPEND
    given = passport(play)
    assert play.record.away == "west" and play.record.shown is JobState.MIGRATING
    there = taken(given)
    assert there.intent is Intent.RUN and there.snapshot == play.record.snapshot and there.hops == 1
    assert there.waits and there.shown is JobState.MIGRATING, "until it runs"
    play.record = there
    play.placed("c", "d", region="west").all(Phase.HELD).all(Phase.RUNNING)
    assert [move.kind for move in play.record.moves] == ["hand-over", "migrate"]
    assert all(move.ok for move in play.record.moves)
    order = play.order("c")
    assert order is not None and order.epoch > given.epoch


def test_its_user_may_call_it_off_until_it_is_handed_over() -> None:
    play = Play().runs("a").happens(LeaveAsked("west")).happens(ResumeAsked())
    assert play.record.parting is None
    play = gone(Play().runs("a")).happens(ResumeAsked())
    assert play.record.waits and play.record.parting is None
    play = gone(Play().runs("a")).happens(SuspendAsked())
    assert play.record.shown is JobState.SUSPENDED and play.record.parting is None
    play = gone(Play().runs("a"))
    passport(play)
    for event in (ResumeAsked(), SuspendAsked(), CancelAsked(), ResizeAsked(1), LeaveAsked("north")):
        with pytest.raises(Refused) as refused:
            play.happens(event)
        assert refused.value.code == "is_elsewhere"


def test_one_that_its_user_suspended_runs_there() -> None:
    """As a migration within one controller resumes it; and nobody sends it elsewhere until it does."""
    play = Play().runs("a").happens(SuspendAsked()).all(Phase.DUMPED).commits().all(Phase.GONE)
    play.happens(LeaveAsked("west"))
    assert ready(play.record), "it stands still already"
    there = taken(passport(play))
    assert there.waits and there.target == Target(region="west")


def test_the_scheduler_leaves_it_free_to_go_on() -> None:
    play = Play().happens(LeaveAsked("west", why="devices are free there"))
    assert ready(play.record)
    there = taken(passport(play))
    assert there.waits and there.target is None and there.queued_s == 5000.0


def test_what_has_still_to_be_confirmed_to_be_gone_is_not_forgotten() -> None:
    play = gone(Play().runs("a"))
    given = passport(play)
    left = Leftover(placement("z").nodes[0], 1)
    before = replace(play.record, leftovers={"z": left})
    back = replace(passport_of_running(taken(given)), came_from="west", to="east")
    assert taken(back, before).leftovers == {"z": left}


def test_where_nobody_answers_it_is_tried_again() -> None:
    """Its snapshot is in the other region, which is cut off while it is restored."""
    play = gone(Play().runs("a"))
    play.record = taken(passport(play))
    play.placed("c", region="west")
    for _ in range(10):
        if play.record.stage is Stage.HOLDING:
            play.fails("c", "transfer", Fault.TRANSIENT, intact=False)
        else:
            play.all(Phase.GONE)
        if play.record.stage is Stage.WAITING:
            break
    assert play.record.stage is Stage.WAITING and play.record.waits


def test_it_is_copied_ahead_while_it_runs() -> None:
    play = Play().runs("a").happens(LeaveAsked("west", ahead=True))
    assert play.record.stage is Stage.RUNNING and play.record.shown is JobState.RUNNING
    assert not ready(play.record)
    play.happens(Copied(2, 1000))
    assert play.record.stage is Stage.DUMPING
    assert [(move.kind, move.nbytes) for move in play.record.moves] == [("copy-ahead", 1000)]
    play.happens(Copied(2, 1000))  # said again
    assert len(play.record.moves) == 1
    plain = Play().runs("a").happens(LeaveAsked("west")).happens(Copied())
    assert plain.record.moves == (), "nothing was copied"
    off = Play().runs("a").happens(LeaveAsked("west", ahead=True)).happens(ResumeAsked())
    assert off.record.parting is None and off.record.stage is Stage.RUNNING


def test_a_cut_that_fails_calls_it_off() -> None:
    play = Play().runs("a").happens(LeaveAsked("west")).happens(Copied())
    play.fails("a", "dump", Fault.JOB_STATE, intact=True)
    assert play.record.parting is None and play.record.intent is Intent.RUN


def test_what_is_refused_comes_back() -> None:
    play = gone(Play().runs("a"))
    passport(play)
    play.happens(TurnedBack("too large", 1))
    assert play.record.waits and play.record.moves[-1].message == "too large" and not play.record.away
    again = passport(play.happens(LeaveAsked("west")))
    assert again.hops == 2
    play.happens(TurnedBack("too large", 1))
    play.happens(NotNeeded(1))
    assert play.record.away and play.record.stage is Stage.WAITING, "both were said of the first passport"


def test_what_is_left_behind_goes_when_nobody_reads_it() -> None:
    play = gone(Play().runs("a"))
    given = passport(play)
    snapshot = play.record.snapshot
    assert snapshot is not None
    play.effects.clear()
    play.happens(NotNeeded(1))
    assert play.record.stage is Stage.OVER and DeleteSnapshot(snapshot.snapshot_id) in play.effects
    there = taken(given)
    back = replace(passport_of_running(there), came_from="west", to="east")
    home = step(play.record, Arrived(back), 6000.0)
    check_step(play.record, home.record)
    assert home.record.stage is Stage.WAITING and home.record.hops == 2 and not home.record.away


def passport_of_running(record: JobRecord) -> Passport:
    """It has been there for a while, and goes on."""
    play = Play()
    play.record = record
    play.placed("c", region="west").all(Phase.HELD).all(Phase.RUNNING).happens(LeaveAsked("east"))
    play.happens(Copied()).all(Phase.DUMPED).commits().all(Phase.GONE)
    return passport(play)


def test_a_job_of_that_id_that_is_here_is_not_replaced() -> None:
    given = passport(gone(Play().runs("a")))
    with pytest.raises(Refused) as refused:
        step(Play().record, Arrived(given), 0.0)
    assert refused.value.code == "is_here"
    there = taken(given)
    assert taken(given, there) is there, "said again"


EAST, WEST = "east", "west"
OTHER = {EAST: WEST, WEST: EAST}


class TwoControllers(RuleBasedStateMachine):
    """Passports are delivered late, twice, or not at all; refusals are for ever, and remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        spec = JobSpec(("x",))
        self.records = {EAST: step(None, Submitted("j", spec), 0.0).record}
        self.refused: dict[str, int] = {}
        self.sent: list[Passport] = []
        self.said: list[tuple[str, Event]] = []  # to a giver: it may come late, twice, or not at all

    def happens(self, where: str, event: Event) -> None:
        before = self.records.get(where)
        self.now_s += 1
        try:
            stepped = step(before, event, self.now_s)
        except Refused:
            return
        check([stepped.record])
        if before is not None:
            check_step(before, stepped.record)
        self.records[where] = stepped.record

    @rule(where=st.sampled_from([EAST, WEST]), why=st.sampled_from(["", "it waits"]))
    def asked_to_leave(self, where: str, why: str) -> None:
        if where in self.records:
            self.happens(where, LeaveAsked(OTHER[where], why=why))

    @rule(
        where=st.sampled_from([EAST, WEST]),
        event=st.sampled_from([ResumeAsked(), SuspendAsked(), Copied()]),
    )
    def asked(self, where: str, event: Event) -> None:
        if where in self.records:
            self.happens(where, event)

    @rule(where=st.sampled_from([EAST, WEST]))
    def runs(self, where: str) -> None:
        record = self.records.get(where)
        if record is not None and record.waits:
            self.happens(where, Placed(placement("n", region=where), record.version))

    @rule(where=st.sampled_from([EAST, WEST]))
    def hands_over(self, where: str) -> None:
        """As its controller does when it is asked for the passport, the first time or again."""
        if where not in self.records:
            return
        self.happens(where, HandedOver())
        record = self.records[where]
        if record.away and record.parting is not None and record.stage is not Stage.OVER:
            self.sent.append(passport_of(record, where, record.parting))

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 20), refuses=st.booleans())
    def delivered(self, number: int, refuses: bool) -> None:
        """As `control/between/passports.py` takes it."""
        given = self.sent[number % len(self.sent)]
        known = self.records.get(given.to)
        if known is not None and known.hops >= given.hops:
            return
        refuses = refuses or (known is not None and not known.away)
        if self.refused.get(given.to, 0) >= given.hops or refuses:
            self.refused[given.to] = max(given.hops, self.refused.get(given.to, 0))
            self.said.append((given.came_from, TurnedBack("no", given.hops)))
            return
        self.happens(given.to, Arrived(given))

    @precondition(lambda self: self.said)
    @rule(number=st.integers(0, 20))
    def heard(self, number: int) -> None:
        self.happens(*self.said[number % len(self.said)])

    @rule(where=st.sampled_from([EAST, WEST]))
    def not_needed(self, where: str) -> None:
        """As the global controller says it of a job whose owner answers."""
        owner = [name for name, record in self.records.items() if not record.away]
        if where in self.records and owner and owner != [where]:
            self.said.append((where, NotNeeded(self.records[where].hops)))

    @invariant()
    def one_owner_at_most(self) -> None:
        owners = [name for name, record in self.records.items() if not record.away]
        assert len(owners) <= 1, f"{owners} have it"
        if not owners:  # then its newest passport is still to be had from who gave it
            newest = max(self.records.values(), key=lambda record: record.hops)
            assert newest.away and newest.stage is Stage.WAITING


TestTwoControllers = TwoControllers.TestCase
TestTwoControllers.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
