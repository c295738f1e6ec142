"""The same small workload run for real on the embedded fleet and simulated with the calibration: how far the
simulator is off, in the time until the last job ended and in the mean completion time.

The simulated jobs are submitted at the seconds at which the real ones were. `POLICY` is the simulator's name
of the policy that the service runs. What was measured by `make bench ONLY=calibration` is read where it is
there, else measured first.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from functools import cache

from benchmarks import calibration
from benchmarks._fleet import fleet
from benchmarks._workload import DEVICES, NODES, Ran, run_for_real, same_fleet, workload
from benchmarks.registry import benchmark
from midstep.sim.catalogue import prepare
from midstep.sim.costs import Costs, read_costs
from midstep.sim.trace import Trace, in_order

POLICY = "midstep"


@benchmark("replay-makespan", bar=5.0, unit="%", against="the same workload on the embedded fleet")
def replay_makespan() -> list[float]:
    """Off by so much, either way."""
    real, simulated = both()
    return [_off(max(r.end_s for r in real.values()), max(r.end_s for r in simulated.values()))]


@benchmark(
    "replay-jct", bar=5.0, unit="%", against="the same workload on the embedded fleet, mean completion"
)
def replay_jct() -> list[float]:
    """Off by so much, either way."""
    real, simulated = both()
    return [_off(mean_jct_s(real), mean_jct_s(simulated))]


@cache
def both() -> tuple[dict[str, Ran], dict[str, Ran]]:
    """The real run and the simulated one."""
    costs = _costs()
    trace = workload()
    with fleet(nodes=NODES, devices=DEVICES) as client:
        real = run_for_real(client, trace)
    simulated = simulate(trace, real, costs)
    _tell(trace, real, simulated)
    return real, simulated


def simulate(trace: Trace, real: dict[str, Ran], costs: Costs) -> dict[str, Ran]:
    """As the real jobs were submitted."""
    jobs = (replace(job, submit_s=round(real[job.job_id].submit_s)) for job in trace.jobs)
    core = prepare(same_fleet(), replace(trace, jobs=in_order(jobs)), POLICY, costs=costs)
    outcome = core.run()
    core.check()
    return {r.job.job_id: Ran(r.job.submit_s, r.end_s) for r in outcome.records}


def mean_jct_s(ran: dict[str, Ran]) -> float:
    """Of all jobs."""
    return statistics.mean(r.end_s - r.submit_s for r in ran.values())


def _costs() -> Costs:
    if not calibration.RESULT.exists():
        calibration.calibration()
    return read_costs(calibration.RESULT)


def _off(real: float, simulated: float) -> float:
    return abs(simulated - real) / real * 100


def _tell(trace: Trace, real: dict[str, Ran], simulated: dict[str, Ran]) -> None:
    for job in trace.jobs:
        on, sim = real[job.job_id], simulated[job.job_id]
        print(
            f"  {job.job_id} {job.tier:<8} {job.devices} devices, {job.duration_s} s: submitted at"
            f" {on.submit_s:.1f} s, ended at {on.end_s:.1f} s; simulated {sim.end_s:.0f} s",
            file=sys.stderr,
        )
    print(
        f"  mean completion {mean_jct_s(real):.1f} s; simulated {mean_jct_s(simulated):.1f} s",
        file=sys.stderr,
    )
