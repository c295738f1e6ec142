"""What the policy's scheduler is told: whatever happened, it ends up with what the records say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from midstep.control.scheduling.asking import ask, counts, has
from midstep.control.scheduling.costs import measured_costs
from midstep.control.scheduling.pilot import PATIENCE_S, REST_S, Pilot, World, efficiency
from midstep.engine.events import Freed, MigrateAsked, ResizeAsked, Submitted, SuspendAsked
from midstep.engine.facets import NodeStep
from midstep.engine.record import JobRecord, Move
from midstep.engine.step import step
from midstep.model.fleet import NodeStatus
from midstep.model.job import JobSpec, Placement
from midstep.model.lifecycle import JobState, Stage
from midstep.model.phase import StepTiming
from midstep.model.tiers import Tier
from midstep.policy.asks import Grant, Settings
from midstep.policy.causes import Free
from midstep.policy.plan import Action, Plan, Start, Suspend
from midstep.wire.metrics import SizeView
from tests.control.fake_agent import node
from tests.engine.play import Play, placement


def world(now_s: float, *records: JobRecord, connected: bool = True, cordoned: tuple[str, ...] = ()) -> World:
    nodes = {name: NodeStatus(node(name), connected, now_s) for name in ("a", "b")}
    return World(now_s, {record.job_id: record for record in records}, nodes, cordoned, {})


def submitted(job_id: str, ranks: int = 1, tier: Tier = Tier.BASIC) -> JobRecord:
    return step(None, Submitted(job_id, JobSpec(("x",), ranks, ranks, tier=tier)), 1.0).record


def running(job_id: str, where: Placement, tier: Tier = Tier.BASIC) -> JobRecord:
    ranks = sum(len(place.ranks) for place in where.nodes)
    return replace(submitted(job_id, ranks, tier), stage=Stage.RUNNING, placement=where)


@pytest.fixture
def pilot() -> Pilot:
    return Pilot(Settings(settle_s=0, spill_s=0))


def grant(pilot: Pilot, job_id: str) -> dict[str, int] | None:
    found = pilot.scheduler.grant(job_id)
    return None if found is None else dict(zip(found.nodes, found.counts, strict=True))


def test_a_restart_adopts_what_runs_and_starts_nothing_twice(pilot: Pilot) -> None:
    here = running("j-1", placement("a", per_node=2))
    pilot.tell(world(10.0, here, connected=False))
    assert grant(pilot, "j-1") == {"a": 2}
    assert pilot.decide(10.0).actions == []
    late = submitted("j-2", 2)
    pilot.tell(world(11.0, here, late, connected=False))
    assert pilot.decide(11.0).actions == [], "no node is connected"
    pilot.tell(world(12.0, here, late))
    assert [action.job_id for action in pilot.decide(12.0).actions] == ["j-2"]
    assert grant(pilot, "j-2") == {"b": 2}
    pilot.scheduler.check()


def test_what_was_lost_is_started_anew(pilot: Pilot) -> None:
    pilot.tell(world(10.0, running("j-1", placement("a"))))
    pilot.decide(10.0)
    waits = replace(submitted("j-1"), version=9)
    pilot.tell(world(20.0, waits))
    assert [type(action) for action in pilot.decide(20.0).actions] == [Start]


def test_a_step_that_is_refused_is_planned_again(pilot: Pilot) -> None:
    record = submitted("j-1")
    pilot.tell(world(10.0, record))
    assert pilot.decide(10.0).actions and "j-1" in pilot.todo
    pilot.failed(10.0, record)
    assert not pilot.todo and grant(pilot, "j-1") is None
    pilot.tell(world(11.0, record))
    assert [action.job_id for action in pilot.decide(11.0).actions] == ["j-1"]


def test_what_cannot_be_placed_holds_nothing_on_paper_for_a_while(pilot: Pilot) -> None:
    record = submitted("j-1")
    pilot.tell(world(10.0, record))
    pilot.decide(10.0)
    pilot.failed(10.0, record, rests=True)
    pilot.tell(world(11.0, record))
    assert not pilot.knows("j-1") and pilot.rests(11.0)
    pilot.tell(world(11.0 + REST_S, record))
    assert pilot.knows("j-1") and not pilot.rests(11.0 + REST_S)


def test_devices_that_others_leave_are_waited_for_but_not_for_ever(pilot: Pilot) -> None:
    lowly = running("j-1", placement("a", "b", per_node=2))
    urgent = submitted("j-2", 4, Tier.PREMIUM)
    pilot.tell(world(10.0, lowly, urgent))
    plan = pilot.decide(10.0)
    assert [type(action) for action in plan.actions] == [Suspend, Start]
    pilot.tell(world(11.0, lowly, urgent))
    assert grant(pilot, "j-2") == {"a": 2, "b": 2}, "what is to be done is not taken back"
    assert not pilot.overdue(10.0 + PATIENCE_S, "j-2") and pilot.overdue(11.0 + PATIENCE_S, "j-2")


def test_who_is_to_stop_and_to_start_elsewhere_stops_first(
    pilot: Pilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = running("j-1", placement("a"))
    pilot.tell(world(10.0, runs))
    actions: list[Action] = [
        Suspend("j-1", Free()),
        Start("j-1", Grant(("b",), (1,)), 1, 1.0, Free()),
    ]
    monkeypatch.setattr(pilot.scheduler, "decide", lambda _: Plan(actions))
    pilot.decide(10.0)
    assert pilot.todo == {"j-1": actions[0]}


@pytest.mark.parametrize(
    "change",
    [
        lambda play: play.happens(SuspendAsked()),
        lambda play: play.happens(SuspendAsked()).all_gone(),
    ],
    ids=["suspending", "suspended"],
)
def test_what_its_user_suspended_is_nobodys_to_start(change: Callable[[Play], Play]) -> None:
    class Story(Play):
        def all_gone(self) -> Play:
            from midstep.model.phase import Phase

            return self.all(Phase.DUMPED).commits().all(Phase.GONE)

    assert ask(change(Story().runs("a")).record, 2000.0) is None


def test_a_number_of_its_users_is_kept_to() -> None:
    play = Play(world_size=2).runs("a", "b")
    wanted = ask(play.record, 2000.0)
    assert wanted is not None and (wanted.devices, wanted.least) == (2, 1)
    pinned = ask(play.happens(ResizeAsked(1)).record, 2000.0)
    assert pinned is not None and (pinned.devices, pinned.least) == (2, 2), "until that is under way"
    free = ask(play.happens(Freed()).record, 2000.0)
    assert free == wanted


def test_where_its_user_sent_it_it_waits_on_its_own(pilot: Pilot) -> None:
    play = Play().runs("a")
    moving = play.happens(MigrateAsked(node="b")).record
    told = ask(moving, 2000.0)
    assert told is not None and not told.may_move
    tied = replace(submitted("j-9"), spec=JobSpec(("x",), node="b"))
    pilot.tell(world(10.0, tied))
    assert not pilot.knows("j-9")


def test_a_reservation_counts_as_had() -> None:
    play = Play().runs("a")
    reserved = replace(play.record, next=placement("b"))
    assert has(reserved) == {"b": 1} == counts(placement("b"))
    assert has(replace(play.record, yields=True)) is None


def test_costs_are_medians_of_what_went_well() -> None:
    def move(kind: str, took_s: float, step_name: str = "", ok: bool = True) -> Move:
        steps = (NodeStep("a", StepTiming(step_name, 1.0)),) if step_name else ()
        return Move(kind, 10.0, 10.0 + took_s, 0, steps, ok)

    moves = (
        *(move("suspend", took_s) for took_s in (1.0, 2.0, 9.0)),
        move("suspend", 100.0, ok=False),
        move("resize", 0.5),
        move("resize", 4.0, "dump"),
        move("migrate", 6.0, "dump"),
    )
    found = measured_costs([replace(submitted("j-1"), moves=moves)])
    assert (found.suspend_s, found.resize_within_s, found.resize_across_s) == (2.0, 0.5, 5.0)
    assert found.resume_s == measured_costs([]).resume_s


def test_efficiency_is_by_ranks_a_device() -> None:
    sizes = [SizeView(4, 8.0, 1.0, 60.0), SizeView(2, 5.0, 1.0, 60.0), SizeView(1, 9.0, 1.0, 1.0)]
    assert efficiency(4, sizes) == {2: 1.25}, "one device was measured for too short a time"
    assert efficiency(4, sizes[1:]) == {}


def test_an_ended_job_is_forgotten(pilot: Pilot) -> None:
    here = running("j-1", placement("a"))
    pilot.tell(world(10.0, here))
    over = replace(here, stage=Stage.OVER, placement=None, outcome=JobState.COMPLETED)
    pilot.tell(world(11.0, over))
    assert not pilot.knows("j-1") and "j-1" not in pilot.scheduler.jobs
