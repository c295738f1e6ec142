"""A small workload of real PyTorch jobs in three tiers, to be run on the embedded fleet and simulated: the
same jobs, the same devices, the same moments of submission."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass

from benchmarks._fleet import BOUND_S, ENDED, submit
from midstep.client.errors import Conflict
from midstep.client.fleet import FleetClient
from midstep.client.types import CheckpointRule, JobView
from midstep.model.tiers import Tier
from midstep.sim.fleet import Fleet, SimNode
from midstep.sim.trace import Job, Trace, in_order

NODES, DEVICES, PACE_S = 2, 2, 0.25
COUNT, SEED = 14, 513
GAP_S = (6, 16)  # between two submissions
LENGTH_S = (25, 75)


@dataclass(frozen=True, slots=True)
class Ran:
    """Seconds from the first submission."""

    submit_s: float
    end_s: float


def workload() -> Trace:
    """Jobs of 1, 2 and 4 devices; more is asked for than there is for about half of the time."""
    chance = random.Random(SEED)
    jobs: list[Job] = []
    at_s = 0
    for index in range(COUNT):
        tier = chance.choices([Tier.PREMIUM, Tier.STANDARD, Tier.BASIC], [2, 3, 5])[0]
        devices, long_s = chance.choice([1, 1, 2, 2, 4]), chance.randint(*LENGTH_S)
        jobs.append(Job(index, f"replay-{index:02}", at_s, long_s, devices, tier=tier))
        at_s += chance.randint(*GAP_S)
    return Trace("replay", in_order(jobs), has_tiers=True)


def same_fleet() -> Fleet:
    """As the embedded one is described to the simulator."""
    return Fleet(tuple(SimNode(f"north-{i + 1}", "main", "cpu", DEVICES) for i in range(NODES)))


def run_for_real(client: FleetClient, trace: Trace) -> dict[str, Ran]:
    """Job -> when it was submitted and when it ended, on the wall. RuntimeError: one did not end well."""
    first = time.time()
    views: dict[str, JobView] = {}
    for job in trace.jobs:
        time.sleep(max(0.0, first + job.submit_s - time.time()))
        views[job.job_id] = _submit(client, job)
        print(f"  {time.time() - first:5.0f} s: {job.job_id}, {job.devices} devices", file=sys.stderr)
    found: dict[str, Ran] = {}
    begun = min(view.submitted_s for view in views.values())
    for name, view in views.items():
        last = client.wait(view.job_id, lambda view: view.state in ENDED, 3 * BOUND_S)
        if last.state != "completed" or last.ended_s is None:
            raise RuntimeError(f"{name} is {last.state}: {last.failure}\n" + "\n".join(last.last_lines))
        found[name] = Ran(last.submitted_s - begun, last.ended_s - begun)
    return found


def _submit(client: FleetClient, job: Job) -> JobView:
    """As best effort where its tier cannot be promised, as in the simulator."""
    steps = str(round(job.duration_s / PACE_S))
    for tier in (job.tier, Tier.BASIC):
        try:
            return submit(
                client,
                "paced.py",
                steps,
                str(PACE_S),
                ranks=job.devices,
                name=job.job_id,
                tier=tier,
                checkpoints=CheckpointRule(off=True),
            )
        except Conflict as refused:
            print(f"  {job.job_id}: {refused}", file=sys.stderr)
    raise RuntimeError(f"{job.job_id} is not admitted even as best effort")
