"""Nodes that fail and come back, drawn from stated distributions, by seed.

Times between failures of a node are exponential (``shape`` 1) or Weibull: below 1 for nodes that fail soon
after they came back (as large systems report: Schroeder and Gibson, DSN'06, found 0.7 to 0.8). Repairs are
lognormal. Each node has a chance of its own, by its name, so that a larger fleet fails the same way.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

from midstep.policy.intervals import FLEET, interval
from midstep.sim.costs import Costs
from midstep.sim.trace import Job


@dataclass(frozen=True, slots=True)
class Failures:
    """Of each node. ``mtbf_h``: mean hours from being there until it fails; ``repair_h``: mean hours until it
    is back, ``repair_sigma``: of their logarithm. ``save_s``: how often the jobs of rivals save what they
    did, at no cost; 0: never, and a failure costs all that they did."""

    mtbf_h: float
    repair_h: float = 4.0
    shape: float = 1.0
    repair_sigma: float = 1.0
    save_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Saved:
    """``every_s``: from one checkpoint to the next, None: never; ``pause_s``: how long each stops the job."""

    every_s: float | None
    pause_s: float = 0.0

    @property
    def share(self) -> float:
        """Of a job's time, what the pauses leave."""
        return 1.0 if not self.every_s else max(0.0, 1.0 - self.pause_s / self.every_s)

    def lost_s(self, ran_s: float) -> float | None:
        """Of so long a run, what is since the last checkpoint; None: all that the job ever did."""
        return ran_s % self.every_s if self.every_s else None


Saves = Callable[[Job, int], Saved]  # of a job on so many nodes


def by_users(failures: Failures) -> Saves:
    """As the jobs' own scripts do, whatever it costs them."""
    saved = Saved(failures.save_s or None)
    return lambda job, nodes: saved


def by_midstep(failures: Failures, costs: Costs) -> Saves:
    """At the interval at which least is lost (`policy.intervals`), for what a checkpoint costs and for nodes
    that fail as these do."""
    rate = 1.0 / (failures.mtbf_h * 3600)
    known: dict[int, Saved] = {}

    def saves(job: Job, nodes: int) -> Saved:
        if nodes not in known:
            every = interval(None, FLEET, costs.checkpoint_s, nodes, rate)
            known[nodes] = Saved(every.seconds, costs.checkpoint_s)
        return known[nodes]

    return saves


class Faults:
    """What fails when, in order, from a moment on. ``nodes``: their names."""

    def __init__(self, failures: Failures, nodes: Sequence[str], seed: int, from_s: int) -> None:
        self._failures = failures
        self._scale_s = failures.mtbf_h * 3600 / math.gamma(1 + 1 / failures.shape)
        self._chances = [random.Random(f"failures {seed} {name}") for name in nodes]
        self._down = [False] * len(nodes)
        self._next = [(from_s + self._up_s(node), node) for node in range(len(nodes))]
        heapify(self._next)

    @property
    def next_s(self) -> int:
        """When a node fails or comes back next."""
        return self._next[0][0]

    def at(self, now_s: int) -> tuple[list[int], list[int]]:
        """Nodes that come back, and that fail, now."""
        touched: dict[int, bool] = {}  # node -> was it down before
        while self._next[0][0] <= now_s:
            at_s, node = self._next[0]
            touched.setdefault(node, self._down[node])
            down = self._down[node] = not self._down[node]
            heapreplace(self._next, (at_s + (self._repair_s(node) if down else self._up_s(node)), node))
        # While nothing ran nobody looked: what failed and came back since then did neither.
        changed = sorted(node for node, before in touched.items() if before != self._down[node])
        return [n for n in changed if not self._down[n]], [n for n in changed if self._down[n]]

    def _up_s(self, node: int) -> int:
        return max(1, round(self._chances[node].weibullvariate(self._scale_s, self._failures.shape)))

    def _repair_s(self, node: int) -> int:
        sigma = self._failures.repair_sigma
        mu = math.log(self._failures.repair_h * 3600) - sigma * sigma / 2
        return max(1, round(self._chances[node].lognormvariate(mu, sigma)))
