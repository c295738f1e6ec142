"""Dry runs: what would happen if a job were submitted, or a node drained. The same code decides as does when
it is done; it works on copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from midstep.control.errors import Rejected
from midstep.control.scheduling import causes
from midstep.control.scheduling.asking import counts_of
from midstep.control.scheduling.cordons import Drain
from midstep.control.scheduling.decisions import code_of
from midstep.control.scheduling.draining import leaving
from midstep.control.scheduling.parts import amount_of
from midstep.control.scheduling.pilot import Pilot, World, in_words, name_of
from midstep.control.scheduling.planner import Planner
from midstep.control.scheduling.scheduler import want_of_spec
from midstep.engine.events import Submitted
from midstep.engine.record import JobRecord
from midstep.engine.step import step
from midstep.model.job import JobSpec
from midstep.model.tiers import Tier
from midstep.policy.picture import Start
from midstep.policy.plan import Action, Suspend
from midstep.policy.plan import Start as Begin
from midstep.wire.plan import PlanView, StepView

NEW = "(new)"  # the job that does not exist


def of_submission(planner: Planner, spec: JobSpec, tier: Tier | None) -> PlanView:
    """A job that would be submitted now."""
    try:
        spec, less = planner.admit(spec, tier)
    except Rejected as refusal:
        said = StepView(NEW, spec.name, "refuse", refusal.problem.code, refusal.problem.detail)
        return PlanView(False, f"it would be refused: {refusal.problem.detail}", (said,))
    world = planner.world()
    record = step(None, Submitted(NEW, spec), world.now_s).record
    if planner.steers:
        pilot = planner.pilot.copy()
        before = dict(pilot.todo)
        pilot.tell(replace(world, records={**world.records, NEW: record}))
        if pilot.knows(NEW):
            plan = pilot.decide(world.now_s)
            actions = [action for key, action in pilot.todo.items() if before.get(key) is not action]
            view = _view(world, pilot, actions, plan.waits.get(NEW), spec)
            return replace(view, summary=view.summary + (f"; {less.message}" if less else ""))
    answer = planner.find(want_of_spec(spec))
    if isinstance(answer, Start):
        nodes = tuple(place.node for place in answer.placement.nodes)
        devices = spec.amount(answer.placement.devices)
        where = causes.Placed(devices, nodes, answer.placement.region)
        begin = StepView(NEW, spec.name, "start", code_of(where), str(where))
        return PlanView(True, f"it would start now with {where}", (begin,), spec.tier)
    wait = StepView(NEW, spec.name, "wait", code_of(answer), str(answer))
    return PlanView(False, f"it would wait: it {answer}", (wait,), spec.tier)


def of_drain(planner: Planner, node: str) -> PlanView:
    """A node that would be drained now; each job that goes takes devices from the next one."""
    world = planner.world()
    records = dict(world.records)
    cordoned = tuple(sorted({*world.cordoned, node}))
    steps: list[StepView] = []
    stuck = 0
    seen: set[str] = set()
    while True:
        drain = Drain(world.now_s)
        jobs = records.values()
        found = leaving(node, drain, jobs, world.nodes, cordoned, world.now_s, planner.has_others)
        one = next((one for one in found if one.job_id not in seen), None)
        if one is None:
            break
        seen.add(one.job_id)
        record = records[one.job_id]
        action = "migrate" if one.state == "moving" else "wait"
        stuck += one.state != "moving"
        steps.append(StepView(one.job_id, record.spec.name, action, code_of(one.cause), str(one.cause)))
        if one.event is not None:
            records[one.job_id] = step(record, one.event, world.now_s).record
    if not steps:
        return PlanView(True, f"{node} is empty")
    if stuck:
        return PlanView(False, f"{stuck} of {len(steps)} jobs cannot leave {node} now", tuple(steps))
    return PlanView(True, f"{len(steps)} jobs would leave {node}", tuple(steps))


def _view(
    world: World, pilot: Pilot, actions: list[Action], reason: object | None, spec: JobSpec
) -> PlanView:
    steps = tuple(_step(world.records, action, spec) for action in actions)
    start = next((a for a in actions if a.job_id == NEW and isinstance(a, Begin)), None)
    if start is None:
        why = reason or pilot.scheduler.why(NEW)
        wait = StepView(NEW, spec.name, "wait", code_of(why), str(why))
        return PlanView(False, f"it would wait: it {why}", (wait, *steps), spec.tier)
    where = causes.Placed(amount_of(start.grant), tuple(counts_of(start.grant)), "")
    others = [action for action in actions if action.job_id != NEW]
    after = ""
    if others:
        stopped = sum(isinstance(action, Suspend) for action in others)
        after = f", after {len(others) - stopped} others were resized or moved and {stopped} suspended"
    return PlanView(True, f"it would start with {where}{after}", steps, spec.tier)


def _step(records: Mapping[str, JobRecord], action: Action, spec: JobSpec) -> StepView:
    known = records.get(action.job_id)
    name = known.spec.name if known is not None else spec.name
    return StepView(action.job_id, name, name_of(action), code_of(action.cause), in_words(action))
