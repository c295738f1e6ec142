"""Steady state: the step time of a DDP job under Midstep against torchrun with gloo, same script, same
machine, in turns.
"""

from __future__ import annotations

import re

from benchmarks._fleet import fleet, log, submit, torchrun, wait
from benchmarks.registry import benchmark

STEP = re.compile(r"^median_step_s (\S+)$", re.MULTILINE)
AGAINST = "torchrun with gloo, 2 ranks"
ROUNDS = 5


def _ratios(*arguments: str) -> list[float]:
    found: list[float] = []
    with fleet(devices=2) as client:
        for _ in range(ROUNDS):
            job = wait(client, submit(client, "ddp.py", *arguments, ranks=2), "completed")
            ours = _median_step_s(log(client, job))
            found.append(ours / _median_step_s(torchrun("ddp.py", *arguments, ranks=2)))
    return found


def _median_step_s(text: str) -> float:
    match = STEP.search(text)
    if match is None:
        raise RuntimeError(f"no step time in:\n{text[-2000:]}")
    return float(match.group(1))


@benchmark("steady-25m", bar=0.90, unit="x", against=AGAINST)
def steady_25m() -> list[float]:
    """25 M parameters, SGD with momentum."""
    return _ratios("--params", "large", "--steps", "40")


@benchmark("steady-100k", bar=1.00, unit="x", against=AGAINST)
def steady_100k() -> list[float]:
    """100 k parameters: one small collective a step."""
    return _ratios("--params", "small", "--steps", "1500")
