"""Random orders of events, with late, repeated and lost messages: nothing runs twice, no device is given
twice, and every job that can end ends."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from midstep.control.scheduling.scheduler import picture, want_moved, want_sized, wants
from midstep.engine import ahead
from midstep.engine.check import check, check_step, verify
from midstep.engine.effects import CommitSnapshot, DeleteSnapshot
from midstep.engine.errors import Refused
from midstep.engine.events import (
    CancelAsked,
    CheckpointAsked,
    ControllerRestarted,
    DeadlinePassed,
    Event,
    Freed,
    MigrateAsked,
    NodeBack,
    NodeGone,
    NodeLost,
    NodeReported,
    NotPlaced,
    Placed,
    Preempted,
    ResizeAsked,
    ResumeAsked,
    SnapshotCommitted,
    SnapshotCopied,
    SnapshotFailed,
    Submitted,
    SuspendAsked,
)
from midstep.engine.orders import desired
from midstep.engine.record import Intent, JobRecord
from midstep.engine.step import step
from midstep.model.fleet import Device, Node, NodeStatus
from midstep.model.job import JobSpec, Placement, SnapshotRef
from midstep.model.lifecycle import Stage
from midstep.model.phase import CopyState, CopyStatus, Failure, Fault, JobOnNode, Phase
from midstep.policy.place import plan
from tests.engine.model_node import ModelNode

NAMES = ("a", "b", "c")
NODES = st.sampled_from(NAMES)
WHERE = st.sampled_from([None, *NAMES])
FAULTS = st.builds(
    Failure,
    st.sampled_from(["dump", "restore", "reconnect"]),
    st.just("no"),
    st.sampled_from(Fault),
    st.booleans(),
)
WISHES = (
    SuspendAsked(),
    ResumeAsked(),
    MigrateAsked(node="a"),
    MigrateAsked(node="c"),
    MigrateAsked(region="west"),
    MigrateAsked(region="west", ahead=True),
    MigrateAsked(region="east", ahead=True),
    CheckpointAsked(),
    CheckpointAsked(due=True),
    *(ResizeAsked(devices) for devices in (1, 2, 3, 4)),
    Freed(),
)
ASKS = st.sampled_from([*WISHES, *WISHES, CancelAsked()])


class Fleet(RuleBasedStateMachine):
    """Three nodes of two devices in two regions, some jobs, and everything that can go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.carries = False
        self.records: dict[str, JobRecord] = {}
        self.vault: dict[str, set[int]] = {}
        self.nodes = {name: ModelNode(name, self.vault) for name in NAMES}
        self.status = {
            name: NodeStatus(
                Node(name, "west" if name == "c" else "east", name, (Device(0, "t"), Device(1, "t"))),
                True,
                0.0,
            )
            for name in NAMES
        }
        self.damaged: set[str] = set()
        for node in self.nodes.values():
            node.damaged = self.damaged
        self.commits: list[CommitSnapshot] = []
        self.said: list[tuple[str, JobOnNode]] = []

    @initialize(carries=st.booleans())
    def devices_are_gpus(self, carries: bool) -> None:
        """Then a resize always takes a cut."""
        self.carries = carries

    @initialize(in_place=st.booleans(), ranks=st.integers(1, 4), node=WHERE, snapshots=st.integers(0, 2))
    def a_job_runs(self, in_place: bool, ranks: int, node: str | None, snapshots: int) -> None:
        """Not every node can dump; the job may have been suspended before."""
        status = self.status["b"]
        self.status["b"] = replace(status, node=replace(status.node, freezes_in_place=in_place))
        self.submit(ranks, 2, node)
        self.go_on(2)
        for _ in range(snapshots):
            for wish in (SuspendAsked(), ResumeAsked()):
                self.ask(0, wish)
                self.go_on_and_commit(2)
                self.go_on(2)

    def take(self, job_id: str, event: Event) -> None:
        before = self.records.get(job_id)
        stepped = step(before, event, self.now_s)
        if before is not None:
            check_step(before, stepped.record)
        self.records[job_id] = stepped.record
        self.commits += [effect for effect in stepped.effects if isinstance(effect, CommitSnapshot)]
        for effect in stepped.effects:
            if isinstance(effect, DeleteSnapshot):
                self.vault.pop(effect.snapshot_id, None)

    @precondition(lambda self: len(self.records) < 3)
    @rule(ranks=st.integers(1, 4), devices=st.integers(1, 4), node=WHERE)
    def submit(self, ranks: int, devices: int, node: str | None) -> None:
        job_id = f"j{len(self.records)}"
        self.take(job_id, Submitted(job_id, JobSpec(("x",), ranks, min(devices, ranks), node=node)))

    @precondition(lambda self: len(self.records) < 3)
    @rule(milli=st.sampled_from([250, 500, 600, 1]), node=WHERE)
    def submit_a_small_one(self, milli: int, node: str | None) -> None:
        """It takes a part of a device."""
        job_id = f"j{len(self.records)}"
        self.take(job_id, Submitted(job_id, JobSpec(("x",), node=node, milli=milli)))

    @rule()
    def schedule(self) -> None:
        answer = plan(picture(self.records.values(), self.status), wants(self.records.values()))
        up = {name: status.node for name, status in self.status.items() if status.connected}
        for start in answer.starts:
            verify(self.records.values(), up, self.records[start.job_id], start.placement)
            self.take(start.job_id, Placed(start.placement, start.seen, start.in_place, self.carries))
        for wait in answer.waits:
            self.take(wait.job_id, NotPlaced(str(wait.reason)))

    @precondition(lambda self: any(record.settled for record in self.records.values()))
    @rule(number=st.integers(0, 2), devices=st.integers(0, 4), avoid=WHERE)
    def schedule_a_running_job(self, number: int, devices: int, avoid: str | None) -> None:
        """The scheduler suspends it (0 devices), or gives it another number, or moves it off a node."""
        able = [job_id for job_id, record in sorted(self.records.items()) if record.settled]
        record = self.records[able[number % len(able)]]
        if devices == 0:
            self.take(record.job_id, Preempted(record.version, "for others"))
            return
        if record.in_place:
            return
        want = (
            want_moved(record, (avoid,))
            if avoid
            else want_sized(record, min(devices, record.spec.world_size))
        )
        assert record.placement is not None
        want = replace(want, at=record.placement, region=record.placement.region)
        for start in plan(picture(self.records.values(), self.status), [want]).starts:
            if start.placement != record.placement:
                self.take(record.job_id, Placed(start.placement, start.seen, False, self.carries, "it fits"))

    @precondition(lambda self: self.records)
    @rule(number=st.integers(0, 2), event=ASKS)
    def ask(self, number: int, event: Event) -> None:
        job_id = sorted(self.records)[number % len(self.records)]
        if isinstance(event, ResizeAsked) and event.devices > self.records[job_id].spec.world_size:
            return  # the service refuses it
        try:
            self.take(job_id, event)
        except Refused as refused:
            assert refused.state == self.records[job_id].shown

    @rule(times=st.integers(1, 4))
    def go_on(self, times: int) -> None:
        """All is well for a while."""
        self.schedule()
        for _ in range(times):
            self._exchange()

    @rule(times=st.integers(1, 4))
    def go_on_and_commit(self, times: int) -> None:
        self.go_on(times)
        for _ in range(len(self.commits)):
            self.commit(True)

    @rule(name=NODES)
    def go_on_at(self, name: str) -> None:
        """One node is faster than the others."""
        self.send_orders(name)
        self.obey(name, 100)
        self.report(name)

    @rule(name=NODES)
    def send_orders(self, name: str) -> None:
        if self.nodes[name].connected:
            orders = [desired(record).get(name) for _, record in sorted(self.records.items())]
            self.nodes[name].inbox += [order for order in orders if order is not None]

    @rule(name=NODES, count=st.integers(1, 3))
    def obey(self, name: str, count: int) -> None:
        """Orders may be worked on long after they were sent."""
        node = self.nodes[name]
        for order in node.inbox[:count]:
            node.obey(order)
        del node.inbox[:count]

    @rule(name=NODES)
    def report(self, name: str) -> None:
        node = self.nodes[name]
        for report in node.reports() if node.connected else ():
            self.said.append((name, report))
            self.take(report.job_id, NodeReported(name, report))

    @precondition(lambda self: self.said)
    @rule(number=st.integers(0, 1000))
    def report_again(self, number: int) -> None:
        """A report is repeated, or comes very late; a late one from a node of no job may ask for a harmless
        clean-up."""
        name, report = self.said[-1 - number % min(len(self.said), 20)]
        record = self.records[report.job_id]
        if name in {place.node for place in record.nodes}:
            self.take(report.job_id, NodeReported(name, report))

    @rule(name=NODES, failure=FAULTS)
    def fall_sick(self, name: str, failure: Failure) -> None:
        self.nodes[name].sick = failure

    @rule(name=NODES)
    def lose_proxies(self, name: str) -> None:
        self.nodes[name].lose_proxies()

    @rule(name=NODES, reports=st.booleans())
    def restart_a_node(self, name: str, reports: bool) -> None:
        self.nodes[name].restart()
        if reports:
            self.report(name)

    @precondition(lambda self: self.records)
    @rule(
        name=NODES, number=st.integers(0, 2), rank=st.integers(0, 3), code=st.sampled_from([0, 0, 0, 1, 137])
    )
    def finish(self, name: str, number: int, rank: int, code: int) -> None:
        job_id = sorted(self.records)[number % len(self.records)]
        if job_id in self.nodes[name].jobs:
            self.nodes[name].finish(job_id, rank, code)

    @precondition(lambda self: self.commits)
    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        effect = self.commits.pop(0)
        done = SnapshotCommitted(SnapshotRef(effect.snapshot_id, effect.region, 1), 0.1)
        self.take(effect.job_id, done if succeeds else SnapshotFailed(effect.snapshot_id, "no"))

    @precondition(lambda self: self.records)
    @rule(number=st.integers(0, 2), times=st.integers(1, 3))
    def checkpoint_and_go_on(self, number: int, times: int) -> None:
        """Some in a row, with all going well."""
        for _ in range(times):
            self.ask(number, CheckpointAsked())
            self.go_on(3)
            self.go_on_and_commit(2)

    @rule(state=st.sampled_from(CopyState), megabytes=st.integers(0, 100))
    def copy_ahead(self, state: CopyState, megabytes: int) -> None:
        """Nodes say how far they are with what they copy."""
        for job_id, record in self.records.items():
            for node, copy in ahead.wanted(record).items():
                name = copy.source.snapshot_id
                assert name in self.vault, f"{job_id} has {name} copied, which nobody has"
                status = CopyStatus(job_id, name, state, megabytes * 10**6, 0, 0, 60.0)
                self.take(job_id, SnapshotCopied(node, status))

    @precondition(lambda self: self.vault)
    @rule(number=st.integers(0, 5))
    def damage(self, number: int) -> None:
        """A snapshot cannot be read any more."""
        self.damaged.add(sorted(self.vault)[number % len(self.vault)])

    @rule(name=NODES)
    def give_up(self, name: str) -> None:
        """A node that is not connected has been so for too long: its agent has fenced itself before."""
        if not self.nodes[name].connected:
            self.nodes[name].fence()
            for job_id in self.records:
                self.take(job_id, NodeGone(name))

    @rule(name=NODES)
    def disconnect(self, name: str) -> None:
        if self.nodes[name].connected:
            self._set_connected(name, False)
            for job_id in self.records:
                self.take(job_id, NodeLost(name))

    @rule(name=NODES)
    def connect(self, name: str) -> None:
        if not self.nodes[name].connected:
            self._set_connected(name, True)
            for job_id in self.records:
                self.take(job_id, NodeBack(name))

    def _set_connected(self, name: str, connected: bool) -> None:
        self.nodes[name].connected = connected
        self.nodes[name].inbox.clear()
        node = self.status[name].node
        self.status[name] = NodeStatus(node, connected, self.now_s)

    @rule(seconds=st.sampled_from([1.0, 30.0, 130.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        for job_id in self.records:
            self.take(job_id, DeadlinePassed())

    @rule()
    def restart_controller(self) -> None:
        self.commits.clear()
        for name in NAMES:
            if self.nodes[name].connected:
                self._set_connected(name, False)
        for job_id in self.records:
            self.take(job_id, ControllerRestarted())

    @invariant()
    def snapshots_that_may_be_needed_are_there(self) -> None:
        for job_id, record in self.records.items():
            for ref in (record.snapshot, record.older):
                assert ref is None or ref.snapshot_id in self.vault, f"{job_id}: {ref} was deleted"

    @invariant()
    def all_invariants_hold(self) -> None:
        check(self.records.values())

    @invariant()
    def nothing_runs_twice(self) -> None:
        for job_id, record in self.records.items():
            places = {
                rank: [
                    n.name
                    for n in self.nodes.values()
                    if job_id in n.jobs and n.jobs[job_id].running and rank in n.jobs[job_id].ranks
                ]
                for rank in range(record.spec.world_size)
            }
            if record.stage is not Stage.OVER:
                assert all(len(names) <= 1 for names in places.values()), f"{job_id}: {places}"

    @invariant()
    def nothing_is_thrown_away(self) -> None:
        for node in self.nodes.values():
            assert not node.wrongs, node.wrongs

    @invariant()
    def all_ranks_come_from_one_cut(self) -> None:
        for job_id, record in self.records.items():
            if record.stage is Stage.RUNNING:
                here = [self.nodes[place.node].jobs[job_id] for place in record.nodes]
                origins = {entry.origin for entry in here if entry.running and entry.epoch == record.epoch}
                assert len(origins) <= 1, f"{job_id} is made of {origins}"

    @invariant()
    def no_epoch_on_a_node_is_ahead(self) -> None:
        for node in self.nodes.values():
            for job_id, entry in node.jobs.items():
                assert entry.epoch <= self.records[job_id].epoch

    def teardown(self) -> None:
        """When faults stop and everybody cancels, every job ends and nothing of it is left."""
        for node in self.nodes.values():
            node.sick = None
            self.connect(node.name)
        for job_id in self.records:
            try:
                self.take(job_id, CancelAsked())
            except Refused:
                pass
        for _ in range(6):
            self._exchange()
        for job_id, record in self.records.items():
            assert record.stage is Stage.OVER, f"{job_id}\n" + "\n".join(record.story)
            assert not record.leftovers
            for node in self.nodes.values():
                assert job_id not in node.jobs or node.jobs[job_id].phase is Phase.GONE

    def _exchange(self) -> None:
        for name, node in self.nodes.items():
            self.send_orders(name)
            self.obey(name, len(node.inbox))
            self.report(name)


class Lively(Fleet):
    """The same, but at the end jobs are left to run: each that shall run does."""

    def teardown(self) -> None:
        for node in self.nodes.values():
            node.sick = None
            self.connect(node.name)
        for _ in range(40):
            self.schedule()
            self._exchange()
            while self.commits:
                self.commit(True)
            self.copy_ahead(CopyState.DONE, 1)
            self.now_s += 1
        for job_id, record in self.records.items():
            resting = (Stage.RUNNING, Stage.WAITING, Stage.FROZEN, Stage.OVER)
            assert record.stage in resting, f"{job_id} {record.shown}\n" + "\n".join(record.story)
            if record.stage is Stage.WAITING and record.shown == "queued":
                assert record.waiting, f"{job_id} waits without a reason"
            if record.would_resize:
                assert record.waiting, f"{job_id} is not resized, without a reason"
            if record.stage is Stage.RUNNING and record.intent is Intent.MIGRATE:
                assert record.waiting, f"{job_id} is not moved, without a reason"
                assert record.target and not record.target.met(placed(record)), f"{job_id} is there"


def placed(record: JobRecord) -> Placement:
    assert record.placement is not None
    return record.placement


class Recovering(Lively):
    """The same, with a job that is saved again and again, and loses processes, nodes and snapshots."""

    @initialize()
    def a_job_is_saved(self) -> None:
        self.take("j9", Submitted("j9", JobSpec(("x",), 2, 2, retries=2)))
        self.go_on(2)

    @rule(commits=st.booleans(), first=NODES, times=st.integers(0, 2))
    def save(self, commits: bool, first: str, times: int) -> None:
        """As far as to the commit, and a little beyond; then anything."""
        try:
            self.take("j9", CheckpointAsked())
        except Refused:
            pass
        for _ in range(4):
            self._exchange()
        for _ in range(len(self.commits) if commits else 0):
            self.commit(True)
        for _ in range(times):
            self.go_on_at(first)

    @rule(name=NODES, code=st.sampled_from([1, 137]))
    def lose_a_rank(self, name: str, code: int) -> None:
        if "j9" in self.nodes[name].jobs:
            for rank in self.nodes[name].jobs["j9"].ranks[:1]:
                self.nodes[name].finish("j9", rank, code)
        self.go_on(3)

    @rule(name=NODES, comes_back=st.booleans())
    def lose_a_node(self, name: str, comes_back: bool) -> None:
        self.disconnect(name)
        self.now_s += 61
        self.give_up(name)
        self.go_on(3)
        if comes_back:
            self.connect(name)


class Elastic(Lively):
    """The same, with a job that is resized again and again, over its nodes and within them."""

    @initialize(devices=st.integers(1, 4))
    def a_job_is_resized(self, devices: int) -> None:
        self.take("j9", Submitted("j9", JobSpec(("x",), 4, devices)))
        self.go_on(2)

    @rule(devices=st.integers(1, 4))
    def resize(self, devices: int) -> None:
        self._resize("j9", devices)

    @rule(devices=st.integers(1, 4), commits=st.booleans(), first=NODES, times=st.integers(0, 2))
    def resize_and_go_on(self, devices: int, commits: bool, first: str, times: int) -> None:
        """As far as to the commit, and a little beyond; then anything."""
        self._resize("j9", devices)
        for _ in range(2):
            self._exchange()
        for _ in range(len(self.commits) if commits else 0):
            self.commit(True)
        for _ in range(times):
            self.go_on_at(first)

    def _resize(self, job_id: str, devices: int) -> None:
        try:
            self.take(job_id, ResizeAsked(devices))
        except Refused:
            pass
        self.schedule()


STEPS = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestFleet = Fleet.TestCase
TestFleet.settings = STEPS
TestRecovering = Recovering.TestCase
TestRecovering.settings = settings(STEPS, max_examples=100)
TestElastic = Elastic.TestCase
TestElastic.settings = settings(STEPS, max_examples=100)
TestLively = Lively.TestCase
TestLively.settings = STEPS
