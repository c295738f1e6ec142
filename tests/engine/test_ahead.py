"""Copy-ahead: what travels while the job runs, when the cut comes, and that whatever goes wrong only means
migrating without."""

from __future__ import annotations

import pytest

from midstep.engine import ahead
from midstep.engine.effects import Log
from midstep.engine.events import (
    CancelAsked,
    CheckpointAsked,
    ControllerRestarted,
    DeadlinePassed,
    Event,
    MigrateAsked,
    NodeReported,
    ResumeAsked,
    SnapshotCopied,
    SuspendAsked,
)
from midstep.model.job import SnapshotRef
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import CopyState, CopyStatus, Doing, JobOnNode, Phase
from tests.engine.play import Play, placement

MB = 10**6
WEST = MigrateAsked(region="west", ahead=True)


def asked(*, region: str = "west") -> Play:
    """A running job that shall go elsewhere, and has devices reserved there."""
    return Play(1).runs("a").happens(MigrateAsked(region=region, ahead=True)).placed("w", region=region)


def saved(play: Play) -> Play:
    """The checkpoint that is being taken is in the vault, and the job runs."""
    play.all(Phase.DUMPED).all(Phase.RUNNING)
    return play.reports("a", Phase.RUNNING, stored=True).commits()


def copied(play: Play, sent_mb: float, took_s: float = 30.0) -> Play:
    """The node there has brought what was ordered."""
    (order,) = ahead.wanted(play.record).values()
    name = order.source.snapshot_id
    status = CopyStatus("j-1", name, CopyState.DONE, int(sent_mb * MB), 0, 7 * MB, took_s)
    return play.happens(SnapshotCopied("w", status))


def test_checkpoints_are_copied_until_the_difference_does_not_shrink() -> None:
    play = saved(asked())
    first = ahead.wanted(play.record)["w"].source
    assert first == play.record.snapshot and play.record.shown is JobState.RUNNING
    saved(copied(play, 100))
    assert ahead.wanted(play.record)["w"].source == play.record.snapshot != first
    saved(copied(play, 20))
    assert play.record.stage is Stage.RUNNING
    copied(play, 19)  # as much as before: the rest is moved while it stands still
    assert play.record.stage is Stage.DUMPING and play.record.shown is JobState.MIGRATING
    assert not ahead.wanted(play.record) and play.record.ahead is None
    (whole,) = [move for move in play.record.moves if move.kind == ahead.MOVE]
    assert whole.ok and whole.nbytes == 139 * MB and len(whole.steps) == 3
    assert {step.timing.known_bytes for step in whole.steps} == {7 * MB}
    lines = [e.message for e in play.effects if isinstance(e, Log) and e.kind == ahead.MOVE]
    assert len(lines) == 3 and "7.0 MB were there" in lines[0]


@pytest.mark.parametrize(("sent_mb", "took_s"), [(1, 100.0), (500, 1.0)])
def test_a_small_difference_is_not_worth_another_checkpoint(sent_mb: float, took_s: float) -> None:
    assert copied(saved(asked()), sent_mb, took_s).record.stage is Stage.DUMPING


def test_the_newest_snapshot_goes_first_without_a_checkpoint() -> None:
    play = saved(Play(1).runs("a").happens(CheckpointAsked()))
    play.happens(WEST).placed("w", region="west")
    assert play.record.stage is Stage.RUNNING
    assert ahead.wanted(play.record)["w"].source == play.record.snapshot
    assert copied(play, 100).record.stage is Stage.DUMPING and play.record.keeps


def test_rounds_come_to_an_end() -> None:
    play, sent_mb = saved(asked()), 10**6
    for _ in range(ahead.ROUNDS - 1):
        saved(copied(play, sent_mb))
        sent_mb //= 2
    assert not copied(play, sent_mb).record.keeps and play.record.stage is Stage.DUMPING


def test_within_a_region_nothing_is_copied_ahead() -> None:
    play = Play(1).runs("a").happens(MigrateAsked(node="b", ahead=True)).placed("b")
    assert play.record.stage is Stage.DUMPING and not play.record.keeps


def test_without_copy_ahead_it_is_cut_at_once() -> None:
    play = Play(1).runs("a").happens(MigrateAsked(region="west")).placed("w", region="west")
    assert play.record.stage is Stage.DUMPING and not play.record.keeps


@pytest.mark.parametrize("how", ["failed", "late", "no checkpoint"])
def test_what_goes_wrong_means_migrating_without(how: str) -> None:
    play = asked()
    if how == "no checkpoint":
        play.fails("a", "dump").all(Phase.HELD).all(Phase.RUNNING)
    else:
        saved(play)
        name = ahead.wanted(play.record)["w"].source.snapshot_id
        status = CopyStatus("j-1", name, CopyState.FAILED, message="the link is cut")
        if how == "failed":
            play.happens(SnapshotCopied("w", status))
        else:
            assert play.record.deadline_s is not None
            play.happens(DeadlinePassed(), after_s=play.record.deadline_s - play.now_s)
    assert play.record.stage is Stage.DUMPING and not play.record.keeps
    assert not next(move for move in play.record.moves if move.kind == ahead.MOVE).ok
    play.all(Phase.DUMPED).commits().all(Phase.GONE)
    assert play.record.stage is Stage.HOLDING and play.record.placement == placement("w", region="west")


@pytest.mark.parametrize(
    ("event", "stage"),
    [(SuspendAsked(), Stage.DUMPING), (CancelAsked(), Stage.ENDING), (ResumeAsked(), Stage.RUNNING)],
)
@pytest.mark.parametrize("when", ["saving", "copying"])
def test_other_wishes_meanwhile(event: Event, stage: Stage, when: str) -> None:
    play = asked() if when == "saving" else saved(asked())
    if when == "saving" and isinstance(event, ResumeAsked):
        return  # it cannot be called off in the middle of a cut
    play.happens(event)
    assert play.record.stage is stage and play.record.ahead is None and play.record.next is None
    assert not ahead.wanted(play.record)
    assert stage is not Stage.RUNNING or play.record.deadline_s is None


def test_a_controller_that_comes_back_goes_on_with_it() -> None:
    play = saved(asked())
    order = ahead.wanted(play.record)
    play.happens(ControllerRestarted())
    assert ahead.wanted(play.record) == order
    play.all(Phase.RUNNING)
    assert ahead.wanted(play.record) == order and play.record.deadline_s is not None


def test_late_words_change_nothing() -> None:
    play = saved(asked())
    before = play.record
    other = CopyStatus("j-1", "j-1-77", CopyState.DONE)
    assert play.happens(SnapshotCopied("w", other)).record.ahead == before.ahead
    play.happens(SuspendAsked())
    name = before.snapshot.snapshot_id if before.snapshot else ""
    play.happens(SnapshotCopied("w", CopyStatus("j-1", name, CopyState.DONE)))
    assert play.record.ahead is None


def test_a_transfer_that_gets_on_is_given_time() -> None:
    """While the ranks' images come from another region, the deadline moves; one that stands still is over."""
    play = Play(1).runs("a").happens(MigrateAsked(region="west")).placed("w", region="west")
    play.all(Phase.DUMPED).commits().all(Phase.GONE)
    assert play.record.stage is Stage.HOLDING and play.record.deadline_s is not None
    first = play.record.deadline_s
    report = JobOnNode("j-1", play.record.epoch, Phase.HOLDING, doing=Doing("transfer", 5, 10))
    second = play.happens(NodeReported("w", report), after_s=100).record.deadline_s
    assert second is not None and second > first
    assert play.happens(NodeReported("w", report), after_s=100).record.deadline_s == second
    assert play.record.snapshot == SnapshotRef("j-1-1", "east", 42)
