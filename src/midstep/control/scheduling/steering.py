"""The policy's plan, turned into what the engine is asked: start with so many devices, resize, move, suspend.

What cannot be done yet (others have to leave first) stays to be done, and is tried again whenever something
has changed; what cannot be done at all, the scheduler is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from midstep.control.scheduling import causes
from midstep.control.scheduling.asking import counts_of, has
from midstep.control.scheduling.decisions import Decision
from midstep.control.scheduling.parts import amount_of
from midstep.control.scheduling.pilot import in_words, name_of, quiet
from midstep.control.scheduling.scheduler import want_now, want_sized
from midstep.engine.events import MigrateAsked, Placed, Preempted
from midstep.engine.record import JobRecord
from midstep.policy import picture
from midstep.policy.plan import Action, Resize, Start, Suspend
from midstep.policy.reasons import NoCapacity, NoPart, NoRoomForHome

if TYPE_CHECKING:
    from midstep.control.scheduling.planner import Planner


class Steering:
    """One planner's."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._told: set[str] = set()  # jobs that wait, and have been told why

    def steer(self) -> float | None:
        """Decide, and do what can be done now. When to come back at the latest."""
        planner = self._planner
        pilot, world = planner.pilot, planner.world()
        pilot.tell(world)
        plan = pilot.decide(world.now_s)
        for action in list(pilot.todo.values()):
            self._do(world.now_s, action)
        self._say_why(plan.waits)
        return plan.wake_s

    def _say_why(self, news: Mapping[str, object]) -> None:
        """To jobs that wait: what is new, and to those that have only begun to, what holds."""
        planner, pilot = self._planner, self._planner.pilot
        waiting = {
            job_id
            for job_id, record in planner.records.items()
            if record.waits and pilot.knows(job_id) and job_id not in pilot.todo
        }
        self._told &= waiting
        for job_id in sorted(waiting):
            if job_id in news or job_id not in self._told:
                reason = news.get(job_id) or pilot.scheduler.why(job_id)
                if reason is not None:
                    planner.wait(job_id, planner.better(planner.records[job_id], reason))
                    self._told.add(job_id)

    def _do(self, now_s: float, action: Action) -> None:
        record = self._planner.records[action.job_id]
        match action:
            case Suspend():
                self._suspend(now_s, record, action)
            case Start():
                self._start(now_s, record, action)
            case Resize():
                self._resize(now_s, record, action)

    def _suspend(self, now_s: float, record: JobRecord, action: Suspend) -> None:
        if has(record) is None:
            self._planner.pilot.done(record.job_id)
        elif record.settled:
            self._apply(now_s, record, action, Preempted(record.version, in_words(action)))
        elif quiet([record]):
            self._planner.pilot.failed(now_s, record)

    def _start(self, now_s: float, record: JobRecord, action: Start) -> None:
        want = want_now(record)
        if not record.waits or want is None:
            self._planner.pilot.failed(now_s, record)
            return
        self._place(now_s, record, action, want)

    def _resize(self, now_s: float, record: JobRecord, action: Resize) -> None:
        planner, wanted = self._planner, counts_of(action.grant)
        if planner.pilot.is_done(action):
            planner.pilot.done(record.job_id)
        elif not record.settled or record.placement is None:
            if quiet([record]):
                planner.pilot.failed(now_s, record)
        elif (region := planner.region_of(next(iter(wanted)))) != record.placement.region:
            self._apply(now_s, record, action, MigrateAsked(region=region, ahead=True))
        else:
            self._place(now_s, record, action, want_sized(record, action.grant.devices))

    def _place(self, now_s: float, record: JobRecord, action: Start | Resize, want: picture.Want) -> None:
        """Within the nodes that the plan names."""
        planner, wanted = self._planner, counts_of(action.grant)
        spec = replace(want.spec, devices=action.grant.devices)
        want = replace(want, spec=spec, node=None, beside=planner.pilot.beside(action))
        if isinstance(action, Start):
            region = planner.region_of(next(iter(wanted)))
            want = replace(want, region=region, homes=planner.homes(want, region, set(wanted)))
        answer = planner.find(planner.within(want, set(wanted)))
        if isinstance(answer, picture.Start):
            why = in_words(action) if isinstance(action, Resize) else ""
            event = Placed(answer.placement, record.version, answer.in_place, answer.carries, why)
            self._apply(now_s, record, action, event)
        elif self._may_come(now_s, record, answer):
            if isinstance(action, Start):
                planner.wait(record.job_id, causes.Coming(amount_of(action.grant), tuple(wanted)))
        else:
            planner.pilot.failed(now_s, record, rests=isinstance(action, Start))
            if isinstance(action, Start):
                planner.wait(record.job_id, answer)

    def _may_come(self, now_s: float, record: JobRecord, reason: object) -> bool:
        """Others are still leaving the devices that it is to have; not those that are copied ahead: that may
        last for long."""
        full = isinstance(reason, NoCapacity | NoPart | NoRoomForHome)
        leaving = [other for other in self._planner.records.values() if other.ahead is None]
        under_way = not quiet(leaving)
        return full and under_way and not self._planner.pilot.overdue(now_s, record.job_id)

    def _apply(
        self, now_s: float, record: JobRecord, action: Action, event: Preempted | Placed | MigrateAsked
    ) -> None:
        made = Decision.of(name_of(action), action.cause)
        if self._planner.apply(record, event, replace(made, message=in_words(action))):
            self._planner.pilot.done(record.job_id)
        else:
            self._planner.pilot.failed(now_s, self._planner.records[record.job_id])
