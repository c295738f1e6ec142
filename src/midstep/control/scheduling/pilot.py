"""Keeps the policy's scheduler informed, and remembers what of its plan is still to be done.

The scheduler takes what it plans as done; here is what it is told of the rest: what was not possible, what
people did, what was lost. It is told everything anew after a restart: it holds nothing that is not in the
records, but for what jobs have had before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from midstep.control.scheduling.asking import Counts, ask, ask_of_spec, counts_of, grant_of, has, shapes
from midstep.control.scheduling.causes import counted
from midstep.control.scheduling.draining import nodes_with
from midstep.control.scheduling.parts import amount_of, beside, is_there, slot_of
from midstep.control.scheduling.quotas import Quota
from midstep.engine.record import JobRecord
from midstep.model.fleet import NodeStatus
from midstep.model.job import JobSpec
from midstep.model.lifecycle import JobState, Stage
from midstep.policy import asks
from midstep.policy.picture import DeviceKey
from midstep.policy.plan import Action, Admission, Plan, Resize, Start, Suspend
from midstep.policy.scheduler import Scheduler
from midstep.wire.metrics import SizeView

PATIENCE_S = 300.0  # for others to leave devices
REST_S = 30.0
LEAST_S = 10.0  # measured for less than that, a rate says little
MOVING = (Stage.HOLDING, Stage.JOINING, Stage.DUMPING, Stage.COMMITTING, Stage.RELEASING, Stage.ENDING)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that the scheduler is to know of."""

    now_s: float
    records: Mapping[str, JobRecord]
    nodes: Mapping[str, NodeStatus]
    cordoned: tuple[str, ...]
    quotas: Mapping[str, Quota]
    measured: Callable[[str], tuple[SizeView, ...]] = lambda _: ()


class Pilot:
    """``todo``: actions that could not be done yet, because others have to free devices before."""

    def __init__(self, settings: asks.Settings) -> None:
        self._settings = settings
        self.scheduler = Scheduler(settings)
        self.todo: dict[str, Action] = {}
        self._nodes: dict[str, tuple[asks.NodeShape, ...]] = {}
        self._records: Mapping[str, JobRecord] = {}
        self._closed: set[str] = set()
        self._asks: dict[str, asks.Ask] = {}
        self._believed: dict[str, Counts | None] = {}
        self._quotas: dict[str, Quota] = {}
        self._seen: dict[str, tuple[dict[int, float], int]] = {}
        self._refused: dict[str, asks.Ask] = {}  # nothing could hold them as they are: placed by hand
        self._rests_until_s: dict[str, float] = {}
        self._since_s: dict[str, float] = {}  # of what is to be done
        self._less: dict[str, float] = {}  # admitted without their tier's guarantee; when that was last tried

    def copy(self) -> Pilot:
        """For dry runs."""
        other = Pilot(self._settings)
        other.scheduler = self.scheduler.copy()
        other.todo = dict(self.todo)
        other._nodes, other._closed = dict(self._nodes), set(self._closed)
        other._asks, other._believed = dict(self._asks), dict(self._believed)
        other._quotas, other._seen = dict(self._quotas), dict(self._seen)
        other._refused, other._rests_until_s = dict(self._refused), dict(self._rests_until_s)
        other._since_s, other._less = dict(self._since_s), dict(self._less)
        return other

    def tell(self, world: World) -> None:
        """Bring the scheduler up to date."""
        for name, quota in world.quotas.items():
            if self._quotas.get(name) != quota:
                self.scheduler.quota(name, asks.Quota(quota.devices, weight=quota.weight))
        for name in self._quotas.keys() - world.quotas.keys():
            self.scheduler.quota(name, None)
        self._quotas = dict(world.quotas)
        self._records = world.records
        busy = {name for record in world.records.values() for name in nodes_with(record)}
        for name, status in sorted(world.nodes.items()):
            self._tell_node(world, name, status, name in busy)
        for record in world.records.values():
            self._tell_job(world, record)

    def decide(self, now_s: float) -> Plan:
        """What to do now; it is in ``todo`` from then on, until it is `done` or `failed`."""
        plan = self.scheduler.decide(now_s)
        for action in plan.actions:
            before = self.todo.pop(action.job_id, None)  # the newest word on a job comes last
            stops = isinstance(before, Suspend) and isinstance(action, Start)
            # It has yet to stop: what it has then, nothing, is not what is believed, so it is planned anew.
            self.todo[action.job_id] = before if before is not None and stops else action
            self._since_s[action.job_id] = now_s
            self._believed[action.job_id] = None if isinstance(action, Suspend) else counts_of(action.grant)
        return plan

    def done(self, job_id: str) -> None:
        """An action was carried out; what became of it is seen in the record."""
        self.todo.pop(job_id, None)

    def failed(self, now_s: float, record: JobRecord, *, rests: bool = False) -> None:
        """An action was not possible: the job has what it had. ``rests``: it would not be possible again; the
        job is placed by hand for a while, so that it does not hold devices on paper."""
        self.todo.pop(record.job_id, None)
        if rests and record.job_id in self._asks:
            self.scheduler.ended(now_s, record.job_id, done=False)
            self._forget(record.job_id)
            self._rests_until_s[record.job_id] = now_s + REST_S
        else:
            self._observe(now_s, record)

    def overdue(self, now_s: float, job_id: str) -> bool:
        """An action has been waiting for others for so long that they will not leave any more."""
        return now_s - self._since_s.get(job_id, now_s) > PATIENCE_S

    def rests(self, now_s: float) -> bool:
        """Whether a job is left out for a while."""
        return any(until_s > now_s for until_s in self._rests_until_s.values())

    def would(self, spec: JobSpec, *, or_basic: bool) -> Admission:
        """Whether a job would be admitted, and as what."""
        return self.scheduler.would(ask_of_spec(spec, "", or_basic=or_basic))

    def knows(self, job_id: str) -> bool:
        """Whether the scheduler decides about a job; else it is placed where its user wants it."""
        return job_id in self._asks

    def _tell_node(self, world: World, name: str, status: NodeStatus, busy: bool) -> None:
        known = self._nodes.get(name)
        there = tuple(shapes(status.node))
        if known is not None and (known != there or (not status.connected and not busy)):
            for shape in known:
                self.scheduler.node_left(world.now_s, shape.name)
            self._closed.discard(name)
            del self._nodes[name]
            known = None
            for job_id, devices in self._believed.items():
                if devices and name in devices:
                    self._believed[job_id] = None
        if known is None:
            if not status.connected and not busy:
                return
            for shape in there:
                self.scheduler.node_joined(shape)
            self._nodes[name] = there
        shut = name in world.cordoned or not status.connected
        if shut != (name in self._closed):
            for shape in there:
                (self.scheduler.cordon if shut else self.scheduler.uncordon)(shape.name)
            (self._closed.add if shut else self._closed.discard)(name)

    def _tell_job(self, world: World, record: JobRecord) -> None:
        job_id, wanted = record.job_id, ask(record, world.now_s)
        known = self._asks.get(job_id)
        if known is not None and (known != wanted or self._could_have_more(world.now_s, known)):
            self.scheduler.ended(world.now_s, job_id, done=record.outcome is JobState.COMPLETED)
            self._forget(job_id)
        rests = world.now_s < self._rests_until_s.get(job_id, 0.0) and record.waits
        if wanted is None or rests or self._refused.get(job_id) == wanted:
            return
        if job_id not in self._asks and not self._submit(world.now_s, wanted):
            return
        seen = (efficiency(wanted.devices, world.measured(job_id)), record.snapshot_bytes)
        if seen != self._seen.get(job_id):
            self.scheduler.progress(world.now_s, job_id, *seen)
            self._seen[job_id] = seen
        if job_id not in self.todo and has(record) != self._believed[job_id]:
            self._observe(world.now_s, record)

    def beside(self, action: Start | Resize) -> tuple[DeviceKey, ...] | None:
        """The device that a job is to share; (): one that nobody has; None: it has whole ones."""
        if action.grant.slot < 0:
            return None
        return beside(self.scheduler, self._records, self.todo, action)

    def is_done(self, action: Resize) -> bool:
        """The job has that already."""
        if has(self._records[action.job_id]) != counts_of(action.grant):
            return False
        return action.grant.slot < 0 or is_there(self.scheduler, self._records, self.todo, action)

    def _submit(self, now_s: float, wanted: asks.Ask) -> bool:
        """Whether the scheduler takes it."""
        tier = self.scheduler.submit(now_s, wanted).tier
        if tier is None:
            self._refused[wanted.job_id] = wanted
            return False
        self._asks[wanted.job_id], self._believed[wanted.job_id] = wanted, None
        if tier is not wanted.tier:
            self._less[wanted.job_id] = now_s
        return True

    def _could_have_more(self, now_s: float, known: asks.Ask) -> bool:
        """A job that came back when its tier could not be promised any more; now it can."""
        tried_s = self._less.get(known.job_id)
        if tried_s is None or now_s - tried_s < REST_S:
            return False
        self._less[known.job_id] = now_s
        return self.scheduler.would(known).tier is known.tier

    def _observe(self, now_s: float, record: JobRecord) -> None:
        if record.job_id not in self._asks:
            return
        devices = has(record)
        grant = None
        if devices:
            slot = slot_of(self.scheduler, self._records, self.todo, next(iter(devices)), record)
            grant = grant_of(devices, record.spec.milli, slot)
        self.scheduler.observed(now_s, record.job_id, grant)
        self._believed[record.job_id] = devices

    def _forget(self, job_id: str) -> None:
        self._asks.pop(job_id, None)
        self._believed.pop(job_id, None)
        self._seen.pop(job_id, None)
        for noted in (self._refused, self._rests_until_s, self._since_s, self._less):
            noted.pop(job_id, None)
        self.todo.pop(job_id, None)


def efficiency(asked: int, sizes: Iterable[SizeView]) -> dict[int, float]:
    """Ranks a device -> progress per device and second over that with one; in steps of a hundredth, so that
    trifles are no news."""
    per_device = {
        size.devices: size.steps_per_s / size.devices for size in sizes if size.measured_s >= LEAST_S
    }
    alone = per_device.get(asked)
    if not alone:
        return {}
    return {
        -(-asked // devices): round(rate / alone, 2)
        for devices, rate in sorted(per_device.items())
        if devices < asked
    }


def quiet(records: Iterable[JobRecord]) -> bool:
    """No job is on its way: what is not free now will not be by itself."""
    return not any(
        record.stage in MOVING
        or record.next is not None
        or (record.leftovers and record.stage is not Stage.OVER)
        for record in records
    )


def in_words(action: Action) -> str:
    """An action and why."""
    if isinstance(action, Suspend):
        return str(action.cause)
    return f"{counted(amount_of(action.grant))} on {', '.join(counts_of(action.grant))}: {action.cause}"


def name_of(action: Action) -> str:
    """As in DecisionView."""
    if isinstance(action, Suspend):
        return "suspend"
    return "start" if isinstance(action, Start) else "resize"
