"""Checkpoints and recovery: what is kept, what it is counted by, and what a job goes on from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midstep.engine.effects import CommitSnapshot, DeleteSnapshot
from midstep.engine.errors import Refused
from midstep.engine.events import (
    CheckpointAsked,
    ControllerRestarted,
    NodeBack,
    NodeGone,
    NodeLost,
    NodeReported,
    ResumeAsked,
    SnapshotCommitted,
    SuspendAsked,
)
from midstep.engine.facets import NodeStep
from midstep.model.job import SnapshotRef
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import Fault, Goal, Phase, StepTiming
from tests.engine.play import Play


def running() -> Play:
    return Play(2).runs("a", "b")


def checkpoint(play: Play) -> Play:
    return play.happens(CheckpointAsked()).all(Phase.DUMPED).all(Phase.RUNNING).stores()


def ids(play: Play) -> tuple[str | None, str | None]:
    """The snapshots that it would go on from: the newest, and the one before."""
    refs = (play.record.snapshot, play.record.older)
    return tuple(ref.snapshot_id if ref else None for ref in refs)  # type: ignore[return-value]


def test_the_same_processes_go_on_under_the_same_epoch_and_proxies() -> None:
    play = running()
    epoch, peers = play.record.epoch, play.record.peers
    play.happens(CheckpointAsked())
    assert play.order("a") and play.order("a").goal is Goal.DUMP  # type: ignore[union-attr]
    play.all(Phase.DUMPED)
    order = play.order("b")
    assert order is not None and (order.goal, order.epoch, order.peers) == (Goal.RUN, epoch, peers)
    assert order.target == "j-1-1.1", "its part is stored meanwhile"
    play.all(Phase.RUNNING)
    assert ids(play) == (None, None), "it is not safe yet"
    play.stores()
    assert play.record.epoch == epoch and play.record.ran, "what runs must not be restored beside itself"
    assert ids(play) == ("j-1-1.1", None) and ids(checkpoint(play)) == ("j-1-1.2", "j-1-1.1")


def test_a_late_word_on_the_checkpoint_before_is_not_taken_for_this_one() -> None:
    play = running().happens(CheckpointAsked()).reports("a", Phase.DUMPED)
    late = dict(play.record.reports)
    play.reports("b", Phase.DUMPED).all(Phase.RUNNING).stores().happens(CheckpointAsked())
    play.reports("b", Phase.DUMPED)
    for node, report in late.items():
        play.happens(NodeReported(node, report))
    assert play.record.stage is Stage.DUMPING


def test_what_was_lost_goes_on_from_the_newest_checkpoint() -> None:
    play = checkpoint(checkpoint(running()))
    play.fails("a", "run", intact=False).all(Phase.GONE).placed("c", "d")
    order = play.order("c")
    assert order is not None and order.source is not None and order.source.snapshot_id == "j-1-1.2"
    play.all(Phase.HELD).all(Phase.RUNNING)
    assert [(move.kind, move.ok) for move in play.record.moves][-1] == ("recover", True)
    assert play.record.losses == 1


def test_a_damaged_snapshot_is_passed_over() -> None:
    play = checkpoint(checkpoint(running()))
    play.fails("a", "run", intact=False).all(Phase.GONE).placed("a", "b")
    play.fails("a", "fetch", Fault.SNAPSHOT, intact=False).all(Phase.GONE)
    assert play.record.shown is JobState.QUEUED and ids(play) == ("j-1-1.1", None)
    assert play.record.damaged == ("j-1-1.2",)
    play.placed("a", "b")
    order = play.order("a")
    assert order is not None and order.source is not None and order.source.snapshot_id == "j-1-1.1"
    play.fails("a", "fetch", Fault.SNAPSHOT, intact=False).all(Phase.GONE)
    assert play.record.shown is JobState.SUSPENDED, "without another one, a user has to decide"


def test_a_recovery_that_one_node_cannot_restore_is_tried_on_others() -> None:
    play = checkpoint(running()).fails("a", "run", intact=False).all(Phase.GONE).placed("c", "d")
    play.fails("c", "restore", intact=False).all(Phase.GONE)
    assert play.record.shown is JobState.QUEUED and play.record.avoid == ("c", "d")
    assert play.record.snapshot is not None


def test_what_runs_on_a_lost_node_is_waited_for_until_it_is_given_up() -> None:
    play = checkpoint(running()).happens(NodeLost("b"))
    assert play.record.stage is Stage.RUNNING
    play.happens(NodeGone("b")).reports("a", Phase.GONE)
    assert play.record.shown is JobState.QUEUED and "b" in play.record.leftovers
    order = play.order("b")
    assert order is not None and order.goal is Goal.GONE
    play.placed("a", "c").all(Phase.HELD).all(Phase.RUNNING).happens(NodeBack("b"))
    play.reports("b", Phase.PROXY_LOST, epoch=1)
    assert play.record.stage is Stage.RUNNING, "what comes back late changes nothing"


def test_a_node_that_is_back_in_time_goes_on() -> None:
    play = running().happens(NodeLost("b")).happens(NodeBack("b")).happens(NodeGone("b"))
    assert play.record.stage is Stage.RUNNING and not play.record.given_up


def test_a_controller_that_restarts_waits_from_its_own_start() -> None:
    play = running().happens(NodeLost("b")).happens(ControllerRestarted(), after_s=50)
    assert play.record.lost["b"] == play.now_s


def test_a_suspended_job_whose_parts_are_safe_does_not_need_its_nodes() -> None:
    play = running().happens(SuspendAsked()).reports("a", Phase.DUMPED).happens(NodeLost("a"))
    play.happens(NodeGone("a")).reports("b", Phase.DUMPED).commits().reports("b", Phase.GONE)
    assert play.record.shown is JobState.SUSPENDED and ids(play) == ("j-1-1", None)


def test_what_is_done_again_ends_after_a_few_times() -> None:
    play = running()
    for _ in range(3):
        play.reports("a", Phase.RUNNING, exits={0: 137}).all(Phase.GONE).runs("a", "b")
    play.reports("a", Phase.RUNNING, exits={0: 137}).all(Phase.GONE)
    assert play.record.shown is JobState.FAILED and play.record.exit is not None
    assert play.record.exit.code == 137


def test_losses_long_after_one_another_are_made_up_for_without_end() -> None:
    play = running()
    for _ in range(10):
        play.now_s += 100
        play.fails("a", "run", intact=False).all(Phase.GONE).runs("a", "b")
    assert play.record.stage is Stage.RUNNING and play.record.losses == 10


def test_the_users_errors_are_theirs() -> None:
    play = checkpoint(running()).reports("a", Phase.RUNNING, exits={0: 1})
    assert play.record.stage is Stage.ENDING and play.record.losses == 0
    play = checkpoint(Play(2, retries=1).runs("a", "b")).reports("a", Phase.RUNNING, exits={0: 1})
    assert play.record.stage is Stage.RELEASING and play.record.retried == 1
    play.all(Phase.GONE).placed("a", "b")
    order = play.order("a")
    assert order is not None and order.source is not None, "from its newest snapshot"


def test_a_checkpoint_that_fails_spoils_nothing() -> None:
    play = running()
    for _ in range(8):
        play.happens(CheckpointAsked()).fails("b", "dump", Fault.JOB_STATE).all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.stage is Stage.RUNNING and play.record.saves.refused == 8 and play.record.attempts == 0
    assert checkpoint(play).record.saves.refused == 0


def test_what_comes_before_a_checkpoint_is_stored_gives_it_up() -> None:
    made = running().happens(CheckpointAsked()).all(Phase.DUMPED).all(Phase.RUNNING)
    made.happens(SuspendAsked())
    assert made.record.stage is Stage.DUMPING and DeleteSnapshot("j-1-1.1") in made.effects
    made.happens(SnapshotCommitted(SnapshotRef("j-1-1.1", "east", 1), 0.1))
    assert ids(made) == (None, None), "a late commit changes nothing"
    play = checkpoint(running()).happens(CheckpointAsked()).all(Phase.DUMPED).all(Phase.RUNNING)
    play.reports("a", Phase.RUNNING, not_stored="the vault is full")
    assert ids(play) == ("j-1-1.1", None) and play.record.saves.refused == 1
    assert play.record.stage is Stage.RUNNING and DeleteSnapshot("j-1-1.2") in play.effects


def test_a_restart_commits_again_a_checkpoint_that_was_being_committed() -> None:
    play = running().happens(CheckpointAsked()).all(Phase.DUMPED).all(Phase.RUNNING)
    for node in ("a", "b"):
        play.reports(node, Phase.RUNNING, stored=True)
    before = [effect for effect in play.effects if isinstance(effect, CommitSnapshot)]
    assert len(before) == 1 and before[0].snapshot_id == "j-1-1.1" and before[0].store == {"k": "dg=="}
    play.happens(ControllerRestarted())
    assert [effect for effect in play.effects if isinstance(effect, CommitSnapshot)] == before * 2


def test_what_it_costs_and_what_is_at_risk() -> None:
    play = running()
    began_s = play.record.saves.since_s
    assert began_s is not None and began_s < play.now_s
    play.happens(CheckpointAsked(), after_s=500)
    cut_s = play.now_s
    play.all(Phase.DUMPED).all(Phase.RUNNING)
    assert play.record.saves.since_s == began_s, "what is not stored is not safe"
    assert play.record.saves.pause_s == play.now_s - cut_s
    play.stores()
    assert play.record.saves.since_s == cut_s
    assert play.record.running_s is not None and play.record.running_s < cut_s, "it has not started anew"
    exposed_s = play.record.exposed_s
    assert exposed_s == pytest.approx(2 * 500)  # two nodes


def test_waiting_for_the_end_of_a_step_is_no_cost() -> None:
    play = running()
    play.happens(CheckpointAsked(), after_s=500)
    cut_s = play.now_s
    play.all(Phase.DUMPED)
    move = play.record.move
    assert move is not None
    waited = NodeStep("n1", StepTiming("lighten", 0.75))
    play.record = replace(play.record, move=replace(move, steps=(*move.steps, waited)))
    play.all(Phase.RUNNING)
    assert play.record.saves.pause_s == pytest.approx(max(0, play.now_s - cut_s - 0.75))


def test_of_many_checkpoints_the_history_keeps_a_few() -> None:
    play = running()
    for _ in range(10):
        checkpoint(play)
    assert [move.kind for move in play.record.moves] == ["checkpoint"] * 3
    assert play.record.saves.taken == 10


@pytest.mark.parametrize(
    ("story", "code"),
    [
        (Play(2), "not_running"),
        (running().happens(SuspendAsked()), "not_running"),
        (running().happens(CheckpointAsked()), "is_checkpointing"),
        (running().happens(NodeLost("a")), "not_running"),
        (Play(1).runs("a", in_place=True), "cannot_checkpoint"),
        (running().reports("a", Phase.RUNNING, exits={0: 1}), "job_ended"),
    ],
)
def test_when_it_is_refused(story: Play, code: str) -> None:
    with pytest.raises(Refused) as refused:
        story.happens(CheckpointAsked())
    assert refused.value.code == code
    before = story.record
    assert story.happens(CheckpointAsked(due=True)).record == before, "what is only due waits"


def test_a_recovery_that_waits_for_devices_can_be_suspended_and_resumed() -> None:
    play = checkpoint(running()).fails("a", "run", intact=False).all(Phase.GONE)
    play.happens(SuspendAsked())
    assert play.record.shown is JobState.SUSPENDED
    play.happens(ResumeAsked()).placed("a", "b").all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.stage is Stage.RUNNING
