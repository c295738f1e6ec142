"""Fleets, jobs and runs for tests, in few words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midstep.sim.catalogue import prepare
from midstep.sim.core import Outcome
from midstep.sim.fleet import Fleet, alike
from midstep.sim.record import Record
from midstep.sim.trace import Job, Trace, in_order

DATA = Path(__file__).parent / "data"


def fleet(nodes: int, devices: int = 8, cluster: str = "a") -> Fleet:
    return Fleet(tuple(alike(cluster, nodes, devices)))


def job(name: str, submit_s: int, duration_s: int, devices: int = 1, **more: Any) -> Job:
    return Job(0, name, submit_s, duration_s, devices, **more)


def trace(*jobs: Job) -> Trace:
    return Trace("test", in_order(jobs), has_tiers=True)


def replay(
    on: Fleet, jobs: Sequence[Job], policy: str, placement: str = "consolidate", seed: int = 0
) -> Outcome:
    core = prepare(on, trace(*jobs), policy, placement, seed)
    outcome = core.run()
    core.check()
    return outcome


def spans(outcome: Outcome) -> dict[str, tuple[int, int]]:
    """Job -> when it started first, when it ended."""
    return {record.job.job_id: (record.first_s, record.end_s) for record in outcome.records}


def of(outcome: Outcome, name: str) -> Record:
    return next(record for record in outcome.records if record.job.job_id == name)
