"""The workload that is run for real and simulated (benchmarks/replay.py): the simulated half of it."""

from __future__ import annotations

from benchmarks._workload import Ran, same_fleet, workload
from benchmarks.replay import simulate
from midstep.model.tiers import Tier
from midstep.sim.costs import Costs


def test_it_is_what_the_comparison_needs() -> None:
    trace = workload()
    assert len(trace.jobs) >= 12 and {job.tier for job in trace.jobs} == set(Tier)
    assert {job.devices for job in trace.jobs} == {1, 2, 4} and same_fleet().devices == 4


def test_jobs_start_when_they_were_submitted_and_wait_for_each_other() -> None:
    trace = workload()
    real = {job.job_id: Ran(job.submit_s + 0.4, 0.0) for job in trace.jobs}
    free = simulate(trace, real, Costs(start_s=4.0, start_device_s=1.0))
    least = {job.job_id: job.duration_s + 4 + job.devices for job in trace.jobs}
    waited = {name: ran.end_s - ran.submit_s - least[name] for name, ran in free.items()}
    assert min(waited.values()) == 0 and sum(wait > 0 for wait in waited.values()) > 3
    assert max(ran.end_s for ran in free.values()) < 600
