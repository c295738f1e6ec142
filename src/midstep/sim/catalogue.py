"""Policies and placements by name, and how a run is put together from them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from midstep.sim.core import Core
from midstep.sim.costs import STATED, Costs
from midstep.sim.errors import FleetError, UnknownName
from midstep.sim.failures import Failures, by_midstep, by_users
from midstep.sim.fleet import Fleet, cluster_of, demand
from midstep.sim.fragments import Fragments, typical
from midstep.sim.ours import Ours
from midstep.sim.outcome import Terms
from midstep.sim.policy import Placer, SimPolicy
from midstep.sim.pool import Pool
from midstep.sim.rivals.easy import Easy
from midstep.sim.rivals.fifo import fifo
from midstep.sim.rivals.las import Las
from midstep.sim.rivals.queue import Queue
from midstep.sim.rivals.restart import Restart
from midstep.sim.rivals.sjf import sjf
from midstep.sim.rivals.srtf import Srtf
from midstep.sim.rivals.static import partition
from midstep.sim.rooms import Rooms
from midstep.sim.shares import BestFit, Random, Shares
from midstep.sim.split import Split
from midstep.sim.trace import MILLI, Job, Trace, with_estimates, with_tiers
from midstep.sim.watch import Least, Watch


@dataclass(frozen=True, slots=True)
class Ground:
    """What a policy is made with: a cluster's nodes, and the jobs that it will get. From the jobs a policy
    may take how much each group asks for, as quotas are negotiated; nothing else. ``costs``: of stopping,
    moving and resuming, as stated or measured."""

    fleet: Fleet
    nodes: tuple[int, ...]
    jobs: tuple[Job, ...]
    placement: str
    seed: int
    costs: Costs = STATED

    def placer(self, nodes: Sequence[int] | None = None) -> Placer:
        """Over all of its nodes, or those."""
        return PLACEMENTS[self.placement](self, self.nodes if nodes is None else nodes)


Maker = Callable[[Ground], "Made"]


@dataclass(frozen=True, slots=True)
class Made:
    """A policy, and who can say whether a job could ever run under it. ``least``: with how many devices it
    would start a job, where that may be fewer than asked for."""

    policy: SimPolicy
    possible: Callable[[Job], str]
    least: Least | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """``whole_fleet``: it has all clusters at once; else one is made for each. ``checkpoints``: it saves jobs
    itself, as Midstep does; else their users do."""

    make: Maker
    says: str
    whole_fleet: bool = False
    checkpoints: bool = False


def _simple(make: Callable[[Placer], SimPolicy]) -> Maker:
    def made(ground: Ground) -> Made:
        placer = ground.placer()
        return Made(make(placer), placer.possible)

    return made


def _restart(ground: Ground) -> Made:
    placer, needs = ground.placer(), demand(ground.jobs)
    total = sum(needs.values()) or 1.0
    quotas = {group: placer.total * need / total for group, need in sorted(needs.items())}
    return Made(Restart(placer, quotas), placer.possible)


def _static(ground: Ground) -> Made:
    parts = partition(ground.fleet, ground.nodes, ground.jobs)
    placers = {group: ground.placer(nodes) for group, nodes in parts.items() if nodes}
    policy = Split(
        "static",
        {group: fifo(placer) for group, placer in placers.items()},
        lambda job: job.group,
        {node: group for group, nodes in parts.items() for node in nodes},
    )

    def possible(job: Job) -> str:
        if job.group not in placers:
            return f"its group {job.group!r} has no nodes"
        why = placers[job.group].possible(job)
        return why and f"in the partition of group {job.group!r}: {why}"

    return Made(policy, possible)


def _queue(ground: Ground) -> Made:
    policy = Queue(ground.fleet, ground.nodes)
    return Made(policy, policy.possible)


def _midstep(ground: Ground) -> Made:
    policy = Ours(ground.fleet, ground.costs)
    return Made(policy, policy.possible, least=lambda job: min(1, job.devices))


POLICIES: dict[str, Entry] = {
    "midstep": Entry(
        _midstep,
        "our own: guarantees by tier, elastic, knows nothing of durations",
        whole_fleet=True,
        checkpoints=True,
    ),
    "fifo": Entry(_simple(fifo), "first in, first out; strict head-of-line blocking"),
    "sjf": Entry(_simple(sjf), "shortest job first, knows durations; strict head-of-line blocking"),
    "srtf": Entry(_simple(Srtf), "shortest remaining time first, knows durations; preempts"),
    "las": Entry(_simple(Las), "least attained service in two queues, as in Tiresias; preempts"),
    "easy": Entry(_simple(Easy), "FIFO with EASY backfill by users' estimates, as in Slurm"),
    "restart": Entry(
        _restart, "quotas by group, preempts and restarts from hourly checkpoints, as under Kueue"
    ),
    "static": Entry(_static, "a partition and a strict FIFO queue for each group"),
    "queue": Entry(_queue, "tier, then submission; what does not fit holds nobody back; no preemption"),
}


def _scored(ground: Ground, nodes: Sequence[int]) -> Placer:
    workload = typical(ground.jobs)
    return Shares(ground.fleet, nodes, Fragments(Rooms(ground.fleet, nodes), workload), ground.seed)


PLACEMENTS: dict[str, Callable[[Ground, Sequence[int]], Placer]] = {
    "consolidate": lambda ground, nodes: Pool(ground.fleet, nodes),
    "random": lambda ground, nodes: Shares(ground.fleet, nodes, Random(ground.seed), ground.seed),
    "best-fit": lambda ground, nodes: Shares(ground.fleet, nodes, BestFit(), ground.seed),
    "fgd": _scored,
}


def prepare(
    fleet: Fleet,
    trace: Trace,
    policy: str,
    placement: str = "consolidate",
    seed: int = 0,
    costs: Costs = STATED,
    failures: Failures | None = None,
) -> Core:
    """A run, ready to go; jobs that could never run are refused in it. UnknownName: of a policy or placement;
    FleetError: no nodes."""
    known(policy, POLICIES, "policy")
    known(placement, PLACEMENTS, "placement")
    if not fleet.devices:
        raise FleetError("the fleet has no devices")
    trace = with_estimates(with_tiers(trace, seed), seed)
    entry = POLICIES[policy]
    clusters = {"": tuple(range(len(fleet.nodes)))} if entry.whole_fleet else fleet.clusters
    where = _clusters(fleet, trace.jobs) if not entry.whole_fleet else [""] * len(trace.jobs)
    parts: dict[str, Made] = {}
    for name, nodes in clusters.items():
        jobs = tuple(job for job in trace.jobs if where[job.index] == name)
        if jobs:
            parts[name] = entry.make(Ground(fleet, nodes, jobs, placement, seed, costs))
    if len(parts) == 1:
        whole = next(iter(parts.values())).policy
    else:
        whole = Split(
            policy,
            {name: made.policy for name, made in parts.items()},
            lambda job: where[job.index],
            {node: name for name in parts for node in clusters[name]},
        )
    saves = None
    if failures is not None:
        failures = _heeded(failures, entry, costs)
        by_itself = by_midstep(failures, costs, fleet.spot_share)
        saves = by_itself if entry.checkpoints else by_users(failures)
    least = next((made.least for made in parts.values()), None)
    watch = _watch(fleet, trace.jobs, placement, where, least)
    core = Core(fleet, trace.jobs, whole, Terms(costs, failures, saves, watch, seed, where))
    _refuse(core, fleet, parts, where, trace.jobs)
    return core


def _heeded(failures: Failures, entry: Entry, costs: Costs) -> Failures:
    """Rivals are published without a use for notices; and one that leaves no time to suspend is none."""
    spot = failures.spot
    if spot is None or (entry.checkpoints and spot.notice_s >= costs.suspend_s):
        return failures
    return replace(failures, spot=replace(spot, notice_s=0))


def _watch(fleet: Fleet, jobs: Sequence[Job], placement: str, where: list[str], least: Least | None) -> Watch:
    """Whether something fits depends on what is free alone, not on the score."""
    parts = placement != "consolidate" or any(job.milli < MILLI for job in jobs if job.devices)
    fitting = "best-fit" if parts else "consolidate"
    placers = {name: Ground(fleet, nodes, (), fitting, 0).placer() for name, nodes in fleet.clusters.items()}
    return Watch(placers, [node.cluster for node in fleet.nodes], where, least)


def known(name: str, table: Iterable[str], what: str) -> None:
    """UnknownName: it is not in there; says what is."""
    names = list(table)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise UnknownName(
            f"there is no {what} {name!r}{f': did you mean {near[0]}?' if near else ''}",
            f"one of {', '.join(names)}",
        )


def _clusters(fleet: Fleet, jobs: Sequence[Job]) -> list[str]:
    """Of each job. The same question has the same answer, so each is asked once."""
    answers: dict[tuple[str, tuple[str, ...]], str] = {}
    found: list[str] = []
    for job in jobs:
        key = (job.cluster, job.device_types)
        if key not in answers:
            answers[key] = cluster_of(fleet, job)
        found.append(answers[key])
    return found


def _refuse(core: Core, fleet: Fleet, parts: dict[str, Made], where: list[str], jobs: Sequence[Job]) -> None:
    answers: dict[tuple[object, ...], str] = {}
    for job in jobs:
        name = where[job.index]
        key = (name, job.group, job.devices, job.milli, job.device_types, job.cpus, job.mem_gib)
        if key not in answers:
            if name in parts:
                answers[key] = parts[name].possible(job)
            else:
                types = ", ".join(sorted({node.device_type for node in fleet.nodes}))
                answers[key] = f"asks for devices of type {'|'.join(job.device_types)}; there are {types}"
        if answers[key]:
            core.refuse(job, answers[key])
