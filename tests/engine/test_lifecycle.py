"""The life of a job by table: what happens, and where it leads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from midstep.control.scheduling.scheduler import want_resized, wants
from midstep.engine.draft import Draft
from midstep.engine.effects import CommitSnapshot, DeleteSnapshot
from midstep.engine.errors import IllegalMove, Refused, Stale
from midstep.engine.events import (
    CancelAsked,
    CheckpointAsked,
    ControllerRestarted,
    MigrateAsked,
    NodeBack,
    NodeGone,
    NodeLost,
    Placed,
    ResizeAsked,
    ResumeAsked,
    SuspendAsked,
)
from midstep.engine.orders import desired
from midstep.engine.record import Intent
from midstep.model.job import NodePlace, Placement, RankPlace
from midstep.model.lifecycle import TABLE, JobState, Stage, Trigger
from midstep.model.phase import Fault, Goal, Phase
from tests.engine.play import Play, placement


def running() -> Play:
    return Play(2).runs("a", "b")


def loses_them(times: int) -> Play:
    play = running()
    for _ in range(times - 1):
        play.fails("a", "run", intact=False).all(Phase.GONE).runs("a", "b")
    return play.fails("a", "run", intact=False)


def checkpointing() -> Play:
    return running().happens(CheckpointAsked())


def checkpointed() -> Play:
    return checkpointing().all(Phase.DUMPED).all(Phase.RUNNING).stores()


def suspending() -> Play:
    return running().happens(SuspendAsked())


def suspended() -> Play:
    return suspending().all(Phase.DUMPED).commits().all(Phase.GONE)


def resuming() -> Play:
    return suspended().happens(ResumeAsked()).placed("a", "b")


def migrating() -> Play:
    """Dumping, with devices reserved elsewhere."""
    return running().happens(MigrateAsked(region="west")).placed("c", "d", region="west")


def arriving() -> Play:
    """Restoring at the new place."""
    return migrating().all(Phase.DUMPED).commits().all(Phase.GONE)


def migrating_ahead() -> Play:
    """Running, with devices reserved elsewhere."""
    play = Play(1).runs("a").happens(MigrateAsked(region="west", ahead=True)).placed("w", region="west")
    return play.all(Phase.DUMPED).all(Phase.RUNNING)


def lost_on_arrival() -> Play:
    """One of the nodes that it was sent to is given up before anything ran there."""
    return arriving().happens(NodeLost("c")).happens(NodeGone("c"))


def shared() -> Placement:
    """Both ranks on one device of one node."""
    ranks = tuple(RankPlace(rank, rank, 0, 1, (0,)) for rank in range(2))
    return Placement("east", (NodePlace("a", 0, ranks),))


def shrinking() -> Play:
    """Dumping rank 1, which goes from b to a; rank 0 stays there."""
    play = running().happens(ResizeAsked(1))
    return play.happens(Placed(shared(), play.record.version))


def switched() -> Play:
    """Node a has rank 0 and restores rank 1; node b waits."""
    return shrinking().all(Phase.DUMPED).commits()


def resized() -> Play:
    return switched().all(Phase.HELD).all(Phase.RUNNING)


def resized_in_place() -> Play:
    """Another device on each node, or fewer: here the number is what changes."""
    play = resized().happens(ResizeAsked(2))
    ranks = tuple(RankPlace(rank, rank, 0, 1, (rank,)) for rank in range(2))
    return play.happens(Placed(Placement("east", (NodePlace("a", 0, ranks),)), play.record.version))


def frozen() -> Play:
    return Play(2).runs("a", in_place=True).happens(SuspendAsked()).all(Phase.DUMPED)


Case = tuple[str, Callable[[], Play], Stage, JobState]
CASES: list[Case] = [
    ("submitted", lambda: Play(2), Stage.WAITING, JobState.QUEUED),
    ("set aside in the queue", lambda: Play(2).happens(SuspendAsked()), Stage.WAITING, JobState.SUSPENDED),
    ("placed", lambda: Play(2).placed("a", "b"), Stage.HOLDING, JobState.STARTING),
    (
        "held on one of two nodes",
        lambda: Play(2).placed("a", "b").reports("a", Phase.HELD),
        Stage.HOLDING,
        JobState.STARTING,
    ),
    ("held", lambda: Play(2).placed("a", "b").all(Phase.HELD), Stage.JOINING, JobState.STARTING),
    ("running", running, Stage.RUNNING, JobState.RUNNING),
    ("suspending", suspending, Stage.DUMPING, JobState.SUSPENDING),
    ("dumped", lambda: suspending().all(Phase.DUMPED), Stage.COMMITTING, JobState.SUSPENDING),
    ("committed", lambda: suspending().all(Phase.DUMPED).commits(), Stage.RELEASING, JobState.SUSPENDING),
    ("suspended", suspended, Stage.WAITING, JobState.SUSPENDED),
    ("resume asked", lambda: suspended().happens(ResumeAsked()), Stage.WAITING, JobState.QUEUED),
    ("resuming", resuming, Stage.HOLDING, JobState.RESUMING),
    ("resumed", lambda: resuming().all(Phase.HELD).all(Phase.RUNNING), Stage.RUNNING, JobState.RUNNING),
    (
        "suspend while starting",
        lambda: Play(1).placed("a").happens(SuspendAsked()).all(Phase.HELD).all(Phase.RUNNING),
        Stage.DUMPING,
        JobState.SUSPENDING,
    ),
    (
        "resume while suspending",
        lambda: suspending().happens(ResumeAsked()).all(Phase.DUMPED).commits().all(Phase.GONE),
        Stage.WAITING,
        JobState.QUEUED,
    ),
    (
        "migrate waits for devices",
        lambda: running().happens(MigrateAsked(node="c")),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "migrate called off",
        lambda: running().happens(MigrateAsked(node="c")).happens(ResumeAsked()),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    ("migrating", migrating, Stage.DUMPING, JobState.MIGRATING),
    ("arriving", arriving, Stage.HOLDING, JobState.MIGRATING),
    ("arrived", lambda: arriving().all(Phase.HELD).all(Phase.RUNNING), Stage.RUNNING, JobState.RUNNING),
    (
        "migrated after suspend was asked",
        lambda: migrating().happens(SuspendAsked()).all(Phase.DUMPED).commits().all(Phase.GONE),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    (
        "restore fails elsewhere",
        lambda: arriving().fails("c", "restore", intact=False),
        Stage.RELEASING,
        JobState.MIGRATING,
    ),
    (
        "it goes back",
        lambda: arriving().fails("c", "restore", intact=False).all(Phase.GONE),
        Stage.HOLDING,
        JobState.MIGRATING,
    ),
    (
        "it cannot go back",
        lambda: arriving().fails("c", "restore").all(Phase.GONE).fails("a", "restore").all(Phase.GONE),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    (
        "restore fails",
        lambda: resuming().fails("b", "restore", intact=False).all(Phase.GONE),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    (
        "a transient fault of a restore",
        lambda: resuming().fails("b", "restore", Fault.TRANSIENT),
        Stage.HOLDING,
        JobState.RESUMING,
    ),
    (
        "dump fails",
        lambda: suspending().fails("b", "dump", Fault.JOB_STATE),
        Stage.HOLDING,
        JobState.RECONNECTING,
    ),
    (
        "dump fails, then",
        lambda: suspending().fails("b", "dump", Fault.JOB_STATE).all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "a transient fault of a dump",
        lambda: suspending().fails("b", "dump", Fault.TRANSIENT).all(Phase.HELD).all(Phase.RUNNING),
        Stage.DUMPING,
        JobState.SUSPENDING,
    ),
    (
        "dump loses the processes",
        lambda: suspending().fails("b", "dump", intact=False),
        Stage.RELEASING,
        JobState.SUSPENDING,
    ),
    (
        "it had a snapshot",
        lambda: (
            resuming()
            .all(Phase.HELD)
            .all(Phase.RUNNING)
            .happens(SuspendAsked())
            .fails("b", "dump", intact=False)
            .all(Phase.GONE)
        ),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    (
        "commit fails",
        lambda: suspending().all(Phase.DUMPED).commit_fails(),
        Stage.HOLDING,
        JobState.RECONNECTING,
    ),
    ("dump overdue", lambda: suspending().overdue(), Stage.HOLDING, JobState.RECONNECTING),
    (
        "commit overdue",
        lambda: suspending().all(Phase.DUMPED).overdue(),
        Stage.HOLDING,
        JobState.RECONNECTING,
    ),
    (
        "release overdue",
        lambda: suspending().all(Phase.DUMPED).commits().overdue(),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    ("start overdue", lambda: Play(1).placed("a").overdue().all(Phase.GONE), Stage.WAITING, JobState.QUEUED),
    (
        "start overdue three times",
        lambda: (
            Play(1)
            .placed("a")
            .overdue()
            .all(Phase.GONE)
            .placed("a")
            .overdue()
            .all(Phase.GONE)
            .placed("a")
            .overdue()
        ),
        Stage.ENDING,
        JobState.ENDING,
    ),
    ("join overdue", lambda: Play(1).placed("a").all(Phase.HELD).overdue(), Stage.HOLDING, JobState.STARTING),
    ("proxy lost", lambda: running().reports("a", Phase.PROXY_LOST), Stage.HOLDING, JobState.RECONNECTING),
    (
        "proxy lost while holding",
        lambda: Play(1).placed("a").reports("a", Phase.PROXY_LOST),
        Stage.HOLDING,
        JobState.STARTING,
    ),
    (
        "ranks lost while they are to be adopted",
        lambda: running().reports("a", Phase.PROXY_LOST).fails("b", "reconnect", intact=False),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "a launch was cut off",
        lambda: Play(1).placed("a").all(Phase.HELD).fails("a", "launch", Fault.TRANSIENT, intact=False),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "proxy lost while joining",
        lambda: Play(1).placed("a").all(Phase.HELD).reports("a", Phase.PROXY_LOST),
        Stage.HOLDING,
        JobState.STARTING,
    ),
    (
        "proxy lost while dumping",
        lambda: suspending().reports("a", Phase.PROXY_LOST),
        Stage.HOLDING,
        JobState.RECONNECTING,
    ),
    (
        "processes lost, no snapshot",
        lambda: running().fails("a", "run", intact=False),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "processes lost, from the beginning",
        lambda: running().fails("a", "run", intact=False).all(Phase.GONE).runs("a", "b"),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    ("processes lost each time", lambda: loses_them(4), Stage.ENDING, JobState.ENDING),
    (
        "processes lost, snapshot",
        lambda: (
            resuming().all(Phase.HELD).all(Phase.RUNNING).fails("a", "thaw", intact=False).all(Phase.GONE)
        ),
        Stage.WAITING,
        JobState.QUEUED,
    ),
    (
        "joining loses processes, snapshot",
        lambda: resuming().all(Phase.HELD).fails("a", "thaw", intact=False),
        Stage.RELEASING,
        JobState.RESUMING,
    ),
    (
        "the command does not exist",
        lambda: Play(1).placed("a").all(Phase.HELD).fails("a", "launch", Fault.USER).all(Phase.GONE),
        Stage.OVER,
        JobState.FAILED,
    ),
    (
        "the upload is broken",
        lambda: Play(1).placed("a").fails("a", "fetch", Fault.USER),
        Stage.ENDING,
        JobState.ENDING,
    ),
    (
        "a rank fails",
        lambda: running().reports("b", Phase.RUNNING, exits={1: 1}).all(Phase.GONE),
        Stage.OVER,
        JobState.FAILED,
    ),
    (
        "one rank is done",
        lambda: running().reports("b", Phase.RUNNING, exits={1: 0}),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "all ranks are done",
        lambda: (
            running()
            .reports("b", Phase.RUNNING, exits={1: 0})
            .reports("a", Phase.RUNNING, exits={0: 0})
            .all(Phase.GONE)
        ),
        Stage.OVER,
        JobState.COMPLETED,
    ),
    (
        "done while joining",
        lambda: Play(1).placed("a").all(Phase.HELD).reports("a", Phase.RUNNING, exits={0: 0}),
        Stage.ENDING,
        JobState.ENDING,
    ),
    (
        "a rank fails while dumping",
        lambda: suspending().reports("a", Phase.DUMPING, exits={0: 2}),
        Stage.ENDING,
        JobState.ENDING,
    ),
    (
        "a rank dies while it is restored",
        lambda: resuming().reports("a", Phase.HOLDING, exits={0: 137}),
        Stage.RELEASING,
        JobState.RESUMING,
    ),
    ("resize waits for devices", lambda: running().happens(ResizeAsked(1)), Stage.RUNNING, JobState.RUNNING),
    ("resizing over nodes", shrinking, Stage.DUMPING, JobState.RESIZING),
    ("resizing, committing", lambda: shrinking().all(Phase.DUMPED), Stage.COMMITTING, JobState.RESIZING),
    ("resizing, switched", switched, Stage.HOLDING, JobState.RESIZING),
    ("resizing, joining", lambda: switched().all(Phase.HELD), Stage.JOINING, JobState.RESIZING),
    ("resized over nodes", resized, Stage.RUNNING, JobState.RUNNING),
    ("resizing on a node", resized_in_place, Stage.HOLDING, JobState.RESIZING),
    (
        "resized on a node",
        lambda: resized_in_place().all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "a resize is asked for while it migrates",
        lambda: migrating().happens(ResizeAsked(1)),
        Stage.DUMPING,
        JobState.MIGRATING,
    ),
    (
        "suspended while ranks are on their way",
        lambda: shrinking().happens(SuspendAsked()).all(Phase.DUMPED).commits().all(Phase.HELD),
        Stage.JOINING,
        JobState.RESIZING,
    ),
    (
        "suspended when they have come",
        lambda: switched().happens(SuspendAsked()).all(Phase.HELD).all(Phase.RUNNING),
        Stage.DUMPING,
        JobState.SUSPENDING,
    ),
    (
        "the dump of those that move fails",
        lambda: shrinking().fails("b", "dump", Fault.JOB_STATE).all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "those that move cannot be restored",
        lambda: switched().fails("a", "restore", intact=False),
        Stage.HOLDING,
        JobState.RESIZING,
    ),
    (
        "those that moved go back",
        lambda: switched().fails("a", "restore", intact=False).all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "those that moved cannot go back",
        lambda: switched().fails("a", "restore", intact=False).fails("a", "restore", intact=False),
        Stage.RELEASING,
        JobState.RESIZING,
    ),
    (
        "cancelled while ranks are on their way",
        lambda: switched().happens(CancelAsked()),
        Stage.ENDING,
        JobState.ENDING,
    ),
    ("cancelled in the queue", lambda: Play(1).happens(CancelAsked()), Stage.OVER, JobState.CANCELLED),
    (
        "cancelled while starting",
        lambda: Play(1).placed("a").happens(CancelAsked()).all(Phase.GONE),
        Stage.OVER,
        JobState.CANCELLED,
    ),
    ("cancelled while running", lambda: running().happens(CancelAsked()), Stage.ENDING, JobState.ENDING),
    (
        "cancelled while committing",
        lambda: suspending().all(Phase.DUMPED).happens(CancelAsked()),
        Stage.ENDING,
        JobState.ENDING,
    ),
    (
        "cancelled while releasing",
        lambda: suspending().all(Phase.DUMPED).commits().happens(CancelAsked()),
        Stage.ENDING,
        JobState.ENDING,
    ),
    ("cancelled when suspended", lambda: suspended().happens(CancelAsked()), Stage.OVER, JobState.CANCELLED),
    (
        "the node never answers the end",
        lambda: running().happens(CancelAsked()).overdue(),
        Stage.OVER,
        JobState.CANCELLED,
    ),
    ("checkpointing", checkpointing, Stage.DUMPING, JobState.RUNNING),
    ("checkpoint dumped", lambda: checkpointing().all(Phase.DUMPED), Stage.JOINING, JobState.RUNNING),
    ("checkpointed", checkpointed, Stage.RUNNING, JobState.RUNNING),
    (
        "checkpoint being stored",
        lambda: checkpointing().all(Phase.DUMPED).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "suspend is asked for in a checkpoint",
        lambda: checkpointing().happens(SuspendAsked()).all(Phase.DUMPED).all(Phase.RUNNING),
        Stage.DUMPING,
        JobState.SUSPENDING,
    ),
    (
        "processes lost while a checkpoint is being stored",
        lambda: checkpointing().all(Phase.DUMPED).all(Phase.RUNNING).fails("a", "run", intact=False),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "migration is asked for in a checkpoint",
        lambda: (
            checkpointing()
            .happens(MigrateAsked(region="west"))
            .all(Phase.DUMPED)
            .all(Phase.RUNNING)
            .placed("c", "d", region="west")
        ),
        Stage.DUMPING,
        JobState.MIGRATING,
    ),
    (
        "a checkpoint fails",
        lambda: checkpointing().fails("b", "dump", Fault.JOB_STATE).all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "processes lost after a checkpoint",
        lambda: checkpointed().fails("a", "run", intact=False).all(Phase.GONE),
        Stage.WAITING,
        JobState.QUEUED,
    ),
    (
        "a rank is killed",
        lambda: running().reports("b", Phase.RUNNING, exits={1: 137}),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "a rank fails, with a retry left",
        lambda: Play(2, retries=1).runs("a", "b").reports("b", Phase.RUNNING, exits={1: 3}),
        Stage.RELEASING,
        JobState.RECONNECTING,
    ),
    (
        "a rank fails again",
        lambda: (
            Play(2, retries=1)
            .runs("a", "b")
            .reports("b", Phase.RUNNING, exits={1: 3})
            .all(Phase.GONE)
            .runs("a", "b")
            .reports("b", Phase.RUNNING, exits={1: 3})
        ),
        Stage.ENDING,
        JobState.ENDING,
    ),
    (
        "a node is lost for good",
        lambda: running().happens(NodeLost("b")).happens(NodeGone("b")).reports("a", Phase.GONE),
        Stage.WAITING,
        JobState.QUEUED,
    ),
    (
        "a node is lost for good before anything ran",
        lambda: resuming().happens(NodeLost("b")).happens(NodeGone("b")).reports("a", Phase.GONE),
        Stage.WAITING,
        JobState.QUEUED,
    ),
    (
        "a node where it shall go is lost before the cut",
        lambda: migrating_ahead().happens(NodeLost("w")),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "a node where it is sent is lost for good",
        lambda: lost_on_arrival().reports("d", Phase.GONE),
        Stage.HOLDING,
        JobState.MIGRATING,
    ),
    (
        "a node is lost for good whose part is in the vault",
        lambda: (
            suspending()
            .all(Phase.DUMPED)
            .happens(NodeLost("b"))
            .happens(NodeGone("b"))
            .commits()
            .reports("a", Phase.GONE)
        ),
        Stage.WAITING,
        JobState.SUSPENDED,
    ),
    ("frozen in place", frozen, Stage.FROZEN, JobState.SUSPENDED),
    ("frozen, resume asked", lambda: frozen().happens(ResumeAsked()), Stage.FROZEN, JobState.QUEUED),
    (
        "thawed",
        lambda: frozen().happens(ResumeAsked()).placed("a").all(Phase.HELD).all(Phase.RUNNING),
        Stage.RUNNING,
        JobState.RUNNING,
    ),
    (
        "frozen, cancelled",
        lambda: frozen().happens(CancelAsked()).all(Phase.GONE),
        Stage.OVER,
        JobState.CANCELLED,
    ),
]


@pytest.mark.parametrize(
    ("story", "stage", "shown"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_where_events_lead(story: Callable[[], Play], stage: Stage, shown: JobState) -> None:
    play = story()
    assert (play.record.stage, play.record.shown) == (stage, shown), "\n".join(play.record.story)


def test_only_what_has_run_is_adopted() -> None:
    """A node that lacks it must not start it anew beside ranks that ran on."""
    play = Play(2).placed("a", "b")
    assert not any(order.adopt for order in desired(play.record).values())
    play.all(Phase.HELD).all(Phase.RUNNING).reports("a", Phase.PROXY_LOST)
    assert [order.adopt for order in desired(play.record).values()] == [True, True]
    assert not any(order.adopt for order in desired(resuming().record).values())


def test_the_cases_take_every_edge_of_the_table() -> None:
    lines = [line.split(": ", 1)[1] for _, story, _, _ in CASES for line in story().record.story]
    taken = {(line.split(" --")[0], line.split("--")[1].removesuffix("-->")) for line in lines}
    missing = [edge for edge in TABLE if (edge.stage.value, edge.trigger.value) not in taken]
    assert not missing


def test_the_table_names_no_move_twice() -> None:
    assert len({(edge.stage, edge.trigger) for edge in TABLE}) == len(TABLE)


def test_a_move_that_is_not_in_the_table_tells_the_story() -> None:
    with pytest.raises(IllegalMove, match="committed is not permitted while running") as error:
        Draft(running().record, 0.0).go(Trigger.COMMITTED)
    assert "waiting --placed--> holding" in str(error.value)


def test_orders_follow_the_stage() -> None:
    play = Play(2).placed("a", "b")
    order = play.order("b")
    assert order is not None and (order.goal, order.epoch, order.source) == (Goal.HOLD, 1, None)
    play.all(Phase.HELD)
    order = play.order("a")
    assert order is not None and [(p.node, p.port, p.ranks) for p in order.peers] == [
        ("a", 5000, (0,)),
        ("b", 5000, (1,)),
    ]
    play.all(Phase.RUNNING).happens(SuspendAsked())
    order = play.order("a")
    assert order is not None and (order.goal, order.target) == (Goal.DUMP, "j-1-1")
    play.all(Phase.DUMPED)
    commit = next(e for e in play.effects if isinstance(e, CommitSnapshot))
    assert (commit.snapshot_id, commit.nodes, commit.store) == ("j-1-1", 2, {"k": "dg=="})
    play.commits()
    order = play.order("a")
    assert order is not None and (order.goal, order.collect) == (Goal.GONE, False)
    play.all(Phase.GONE)
    assert play.order("a") is None


def test_a_restore_gets_the_store_on_the_leader_only() -> None:
    play = resuming()
    leader, other = play.order("a"), play.order("b")
    assert leader is not None and other is not None and leader.source is not None
    assert leader.source.snapshot_id == "j-1-1" and leader.store == {"k": "dg=="} and other.store == {}


def test_processes_that_may_have_run_are_adopted_and_never_restored_again() -> None:
    play = resuming().reports("a", Phase.PROXY_LOST)
    order = play.order("a")
    assert order is not None and order.epoch == 4 and order.source is not None, "nothing ran yet"
    play = resuming().all(Phase.HELD).reports("a", Phase.PROXY_LOST)
    order = play.order("a")
    assert order is not None and order.epoch == 4 and order.source is None, "node b may run already"


def test_the_two_newest_snapshots_are_kept_until_the_job_ends() -> None:
    play = resuming().all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.snapshot is not None
    play.happens(CheckpointAsked()).all(Phase.DUMPED).all(Phase.RUNNING).stores()
    assert not [e for e in play.effects if isinstance(e, DeleteSnapshot)]
    play.happens(SuspendAsked()).all(Phase.DUMPED).commits()
    assert [e for e in play.effects if isinstance(e, DeleteSnapshot)] == [DeleteSnapshot("j-1-1")]
    play.all(Phase.GONE).happens(CancelAsked())
    rest = [DeleteSnapshot("j-1-3"), DeleteSnapshot("j-1-3.1")]
    assert [e for e in play.effects if isinstance(e, DeleteSnapshot)][1:] == rest


def test_old_and_impossible_reports_change_nothing() -> None:
    play = resuming()
    before = play.record
    play.reports("a", Phase.RUNNING, epoch=1).reports("a", Phase.HELD, epoch=99)
    assert play.record == before


def test_what_may_still_run_on_a_lost_node_is_waited_for() -> None:
    play = resuming().all(Phase.HELD).all(Phase.RUNNING).happens(NodeLost("b"))
    play.fails("a", "thaw", intact=False).reports("a", Phase.GONE)
    assert play.record.stage is Stage.RELEASING and play.record.ran
    play.overdue().overdue()
    assert play.record.stage is Stage.RELEASING
    play.happens(NodeBack("b")).all(Phase.GONE)
    assert play.record.shown is JobState.QUEUED


def test_a_node_that_comes_back_after_the_end_is_told_to_clean_up() -> None:
    play = running().happens(NodeLost("b")).happens(CancelAsked()).reports("a", Phase.GONE)
    assert play.record.deadline_s is not None and play.record.deadline_s - play.now_s < 30
    play.overdue()
    assert play.record.stage is Stage.OVER and play.record.outcome is JobState.CANCELLED
    order = play.order("b")
    assert order is not None and (order.goal, order.epoch) == (Goal.GONE, 3)
    play.reports("b", Phase.RUNNING, epoch=1)
    assert play.order("b") is not None
    play.reports("b", Phase.GONE, epoch=3)
    assert play.order("b") is None


def test_a_restart_commits_again_what_was_being_committed() -> None:
    play = suspending().all(Phase.DUMPED)
    play.effects.clear()
    play.happens(ControllerRestarted())
    assert [e.snapshot_id for e in play.effects if isinstance(e, CommitSnapshot)] == ["j-1-1"]
    assert set(play.record.lost) == {"a", "b"}


@pytest.mark.parametrize(
    ("story", "event", "code"),
    [
        (suspended, SuspendAsked(), "already_suspended"),
        (running, ResumeAsked(), "not_suspended"),
        (lambda: Play(1).happens(CancelAsked()), SuspendAsked(), "job_ended"),
        (lambda: Play(1).happens(CancelAsked()), CancelAsked(), "job_ended"),
        (running, MigrateAsked(region="east"), "already_there"),
        (migrating, MigrateAsked(region="east"), "is_migrating"),
        (frozen, MigrateAsked(node="b"), "cannot_move"),
        (running, ResizeAsked(2), "already_that_size"),
        (shrinking, ResizeAsked(1), "already_that_size"),
        (suspended, ResizeAsked(2), "already_that_size"),
        (shrinking, MigrateAsked(region="west"), "is_migrating"),
        (lambda: Play(1).happens(CancelAsked()), ResizeAsked(1), "job_ended"),
    ],
)
def test_what_is_refused(story: Callable[[], Play], event: SuspendAsked, code: str) -> None:
    play = story()
    with pytest.raises(Refused) as error:
        play.happens(event)
    assert error.value.code == code and error.value.state == play.record.shown


def test_resume_drops_a_destination_that_a_queued_job_waits_for() -> None:
    play = suspended().happens(MigrateAsked(node="full"))
    assert play.record.shown is JobState.QUEUED and play.record.target is not None
    assert play.happens(ResumeAsked()).record.target is None


def test_a_plan_that_saw_another_version_is_refused() -> None:
    play = Play(1)
    with pytest.raises(Stale):
        play.happens(Placed(placement("a"), play.record.version - 1))


def test_suspend_asked_of_a_migrating_job_gives_the_reserved_devices_back() -> None:
    play = migrating().happens(SuspendAsked())
    assert play.record.next is None and play.record.intent is Intent.SUSPEND


def test_a_resize_over_nodes_dumps_only_what_leaves() -> None:
    play = shrinking()
    orders = [play.order(node) for node in "ab"]
    assert [(o.goal, o.target, o.leaving) for o in orders if o] == [
        (Goal.DUMP, "j-1-1", ()),
        (Goal.DUMP, "j-1-1", (1,)),
    ]
    play.all(Phase.DUMPED).commits()
    order = play.order("a")
    assert order is not None and order.source is not None and order.store == {"k": "dg=="}
    assert (order.goal, order.source.snapshot_id, len(order.place.ranks)) == (Goal.HOLD, "j-1-1", 2)
    assert play.order("b") is None and play.record.snapshot is None, "it waits, in case all go back"
    play.all(Phase.HELD)
    order = play.order("b")
    assert order is not None and order.goal is Goal.GONE
    play.all(Phase.RUNNING)
    assert [e for e in play.effects if isinstance(e, DeleteSnapshot)] == [DeleteSnapshot("j-1-1")]
    assert (play.record.devices, play.record.source, play.record.part) == (1, None, None)
    assert [(m.kind, m.ok) for m in play.record.moves] == [("resize", True)]


def test_a_resize_on_a_node_takes_no_cut() -> None:
    order = resized_in_place().order("a")
    assert order is not None and (order.goal, order.source) == (Goal.HOLD, None)


def test_what_is_on_a_gpu_is_carried_by_a_cut() -> None:
    play = resized().happens(ResizeAsked(2))
    ranks = tuple(RankPlace(rank, rank, 0, 1, (rank,)) for rank in range(2))
    there = Placement("east", (NodePlace("a", 0, ranks),))
    play.happens(Placed(there, play.record.version, carries=True))
    order = play.order("a")
    assert order is not None and (order.goal, order.leaving) == (Goal.DUMP, ())


def test_a_resize_that_fails_is_given_up() -> None:
    play = switched().fails("a", "restore", intact=False).all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.devices == play.record.wanted == 2 and not play.record.would_resize
    assert {place.node for place in play.record.nodes} == {"a", "b"}
    assert [(m.kind, m.ok, m.message) for m in play.record.moves] == [
        ("resize", False, "no; it goes on where it was")
    ]


def test_without_those_that_stayed_the_others_are_no_job() -> None:
    play = switched().fails("a", "restore", intact=False).fails("a", "restore", intact=False).all(Phase.GONE)
    assert play.record.stage is Stage.WAITING and play.record.waits and play.record.snapshot is None
    order = play.placed("a", "b").order("a")
    assert order is not None and order.source is None, "from the beginning"


def test_the_last_wish_holds() -> None:
    play = shrinking().happens(ResizeAsked(2)).all(Phase.DUMPED).commits().all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.devices == 1 and play.record.would_resize and play.record.wanted == 2


def test_a_resize_of_a_job_without_devices_is_for_its_next_start() -> None:
    play = suspended().happens(ResizeAsked(1))
    assert play.record.shown is JobState.SUSPENDED and play.record.wanted == 1


def test_a_store_of_a_cut_that_came_to_nothing_is_not_that_of_the_snapshot() -> None:
    play = resuming().all(Phase.HELD).all(Phase.RUNNING).happens(SuspendAsked()).all(Phase.DUMPED)
    play.happens(NodeLost("a")).commit_fails()
    assert play.record.store == {"k": "dg=="} and play.record.snapshot is not None


def test_a_node_that_is_still_being_cleared_does_not_make_a_size_impossible() -> None:
    play = switched().all(Phase.HELD).all(Phase.RUNNING)
    assert set(play.record.leftovers) == {"b"}
    assert want_resized(play.record, 2).never == ()
    play.happens(ResizeAsked(2))
    assert [want.never for want in wants([play.record])] == [("b",)], "but it is waited for"
    play.reports("b", Phase.GONE)
    assert [want.never for want in wants([play.record])] == [()]


def test_what_is_reserved_on_a_node_that_is_lost_is_given_back_until_it_is_there_again() -> None:
    play = Play(1).runs("a").happens(MigrateAsked(region="west", ahead=True)).placed("w", region="west")
    assert play.happens(NodeLost("w")).record.next is None and play.record.keeps, "in a checkpoint"
    play = migrating_ahead().happens(NodeLost("w"))
    assert play.record.next is None and play.record.would_move and play.record.target is not None
    play.happens(NodeBack("w")).placed("w", region="west")
    assert play.record.next is not None and play.record.stage is Stage.RUNNING


def test_a_job_that_cannot_be_where_it_was_sent_goes_back_to_where_it_was() -> None:
    play = lost_on_arrival().reports("d", Phase.GONE)
    assert play.record.placement is not None and play.record.placement.region == "east"
    assert play.record.target is None and set(play.record.leftovers) == {"c"}
    play.all(Phase.HELD).all(Phase.RUNNING)
    assert play.record.shown is JobState.RUNNING and not play.record.moves[-1].ok
    assert "goes back to where it was" in play.record.moves[-1].message
