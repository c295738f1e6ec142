"""What the scheduler does with running jobs: it suspends, moves and resizes them, and its users' word goes
before its own."""

from __future__ import annotations

import pytest

from midstep.engine.errors import Refused, Stale
from midstep.engine.events import (
    CheckpointAsked,
    Freed,
    MigrateAsked,
    Placed,
    Preempted,
    ResizeAsked,
    ResumeAsked,
    SuspendAsked,
)
from midstep.engine.record import Intent
from midstep.model.job import NodePlace, Placement, RankPlace
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import Fault, Goal, Phase
from tests.engine.play import Play, placement


def preempted(play: Play) -> Play:
    return play.happens(Preempted(play.record.version, "premium job j-2 needs its devices"))


def on_one_device() -> Placement:
    ranks = tuple(RankPlace(rank, rank, 0, 1, (0,)) for rank in range(2))
    return Placement("east", (NodePlace("a", 0, ranks),))


def test_a_preempted_job_is_suspended_and_queues() -> None:
    play = preempted(Play().runs("a"))
    assert play.record.shown is JobState.SUSPENDING and play.record.intent is Intent.RUN
    order = play.order("a")
    assert order is not None and order.goal is Goal.DUMP and order.leaving is None
    play.all(Phase.DUMPED).commits().all(Phase.GONE)
    assert play.record.shown is JobState.QUEUED and play.record.waits and not play.record.yields
    assert play.record.waiting == "premium job j-2 needs its devices"
    play.placed("b")
    assert play.record.shown is JobState.RESUMING and play.record.source is not None
    assert [(m.kind, m.ok) for m in play.all(Phase.HELD).all(Phase.RUNNING).record.moves] == [
        ("suspend", True),
        ("resume", True),
    ]


def test_its_user_may_suspend_it_meanwhile() -> None:
    play = preempted(Play().runs("a")).happens(SuspendAsked())
    play.all(Phase.DUMPED).commits().all(Phase.GONE)
    assert play.record.shown is JobState.SUSPENDED and not play.record.waits
    assert play.happens(ResumeAsked()).record.waits


def test_what_cannot_be_dumped_goes_on_and_keeps_its_devices() -> None:
    play = preempted(Play().runs("a")).fails("a", "dump", Fault.JOB_STATE)
    play.all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.stage is Stage.RUNNING and play.record.settled
    assert [(m.kind, m.ok) for m in play.record.moves][:1] == [("suspend", False)]


def test_what_may_pass_is_tried_again() -> None:
    play = preempted(Play().runs("a")).fails("a", "dump", Fault.TRANSIENT)
    play.all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.stage is Stage.DUMPING


def test_where_there_is_no_criu_it_stands_still_and_frees_its_devices() -> None:
    play = preempted(Play().runs("a", in_place=True)).all(Phase.DUMPED)
    assert play.record.stage is Stage.FROZEN and play.record.waits and not play.record.yields


def test_a_plan_from_another_version_changes_nothing() -> None:
    play = Play().runs("a")
    for event in (Preempted(1, "x"), Placed(placement("b"), 1, why="x")):
        with pytest.raises(Stale):
            play.happens(event)
    suspended = Play().runs("a").happens(SuspendAsked())
    with pytest.raises(Stale):
        preempted(suspended)


def test_the_scheduler_moves_a_job_within_its_region() -> None:
    play = Play().runs("a")
    play.happens(Placed(placement("b"), play.record.version, why="a is drained"))
    assert play.record.shown is JobState.MIGRATING
    play.all(Phase.DUMPED).commits().all(Phase.HELD).all(Phase.RUNNING)
    assert {place.node for place in play.record.nodes} == {"b"}
    assert [(m.kind, m.ok) for m in play.record.moves] == [("migrate", True)]
    assert play.record.asked is None and play.record.given is None


def test_nothing_is_done_where_it_is_already() -> None:
    play = Play().runs("a")
    with pytest.raises(Stale, match="there already"):
        play.happens(Placed(placement("a"), play.record.version, why="x"))


def test_a_number_that_the_scheduler_gave_is_not_its_users_wish() -> None:
    play = Play(world_size=2).runs("a", "b")
    play.happens(Placed(on_one_device(), play.record.version, why="j-2 needs one"))
    play.all(Phase.DUMPED).commits().all(Phase.HELD).all(Phase.RUNNING)
    assert (play.record.devices, play.record.wanted, play.record.asked) == (1, 1, None)
    assert not play.record.would_resize
    play.happens(ResizeAsked(1))
    assert play.record.asked == 1, "from now on it is"
    with pytest.raises(Refused, match="already"):
        play.happens(ResizeAsked(1))
    assert play.happens(Freed()).record.asked is None
    with pytest.raises(Refused, match="already"):
        play.happens(Freed())


def test_a_resize_of_the_scheduler_that_fails_leaves_no_wish() -> None:
    play = Play(world_size=2).runs("a", "b")
    play.happens(Placed(on_one_device(), play.record.version, why="j-2 needs one"))
    play.fails("a", "dump", Fault.JOB_STATE).all(Phase.HELD).all(Phase.RUNNING)
    assert (play.record.devices, play.record.wanted, play.record.asked) == (2, 2, None)


def test_a_migration_asked_for_meanwhile_comes_first() -> None:
    play = preempted(Play().runs("a")).fails("a", "dump", Fault.TRANSIENT)
    play.happens(MigrateAsked(node="b"))
    assert not play.record.yields and play.record.intent is Intent.MIGRATE


@pytest.mark.parametrize("where", [MigrateAsked(node="a"), MigrateAsked(region="east", ahead=True)])
def test_a_job_is_not_sent_where_it_is_during_a_checkpoint_either(where: MigrateAsked) -> None:
    play = Play().runs("a").happens(CheckpointAsked())
    with pytest.raises(Refused) as refused:
        play.happens(where)
    assert refused.value.code == "already_there"
    play.all(Phase.DUMPED).all(Phase.RUNNING).stores()
    assert play.record.settled, "the scheduler may do with it what it likes"


def test_where_a_queued_job_was_sent_is_forgotten_when_it_runs_there() -> None:
    play = Play().happens(MigrateAsked(node="b")).runs("b")
    assert play.record.target is None and play.record.settled


def test_who_was_sent_away_during_a_suspend_that_fails_goes_from_where_it_is() -> None:
    play = Play().runs("a").happens(SuspendAsked()).happens(MigrateAsked(node="b"))
    play.fails("a", "dump", Fault.TRANSIENT).all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.would_move
    assert play.placed("b").record.stage is Stage.DUMPING and play.record.next == placement("b")
