"""The cut: from the first SIGSTOP to the moment at which all ranks of a 4-rank job on two nodes are
consistent.
"""

from __future__ import annotations

import functools
import statistics
import time

from benchmarks._fleet import fleet, submit, wait
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView, MoveView

SUSPENSIONS = 7
LONG_STEP_S, SHORT_STEP_S = 10.0, 0.05


@functools.cache
def _cuts_s(step_s: float) -> tuple[float, ...]:
    """Seconds of each cut (freeze and drain, the slower node) of a job whose step takes ``step_s``."""
    with fleet(nodes=2, devices=2) as client:
        job = submit(client, "slow_step.py", str(step_s), ranks=4)
        return tuple(_cut_s(client, wait(client, job, "running"), index) for index in range(SUSPENSIONS))


def _cut_s(client: FleetClient, job: JobView, index: int) -> float:
    time.sleep(3.0 + 0.37 * index)  # past the imports, then anywhere within a step
    client.suspend(job.job_id)
    view = wait(client, job, "suspended")
    client.resume(job.job_id)
    wait(client, job, "running")
    return max(_node_cuts_s(view.moves[-1]).values())


def _node_cuts_s(move: MoveView) -> dict[str, float]:
    by_node: dict[str, float] = {}
    for step in move.steps:
        name, _, node = step.step.partition("@")
        if name in ("freeze", "drain"):
            by_node[node] = by_node.get(node, 0.0) + step.duration_s
    return by_node


@benchmark("cut", bar=0.050, unit="s", against="an absolute bound: 4 ranks on 2 nodes, 10 s steps")
def cut() -> list[float]:
    """Median over suspensions at different moments of a 10 s step."""
    return list(_cuts_s(LONG_STEP_S))


@benchmark("cut-step-length", bar=1.5, unit="x", against="the same cut with steps of 0.05 s")
def cut_step_length() -> list[float]:
    """The cut does not wait for the step: with steps 200 times as long it takes no longer (1.5: noise of a
    2-core machine).
    """
    short = statistics.median(_cuts_s(SHORT_STEP_S))
    return [long / short for long in _cuts_s(LONG_STEP_S)]
