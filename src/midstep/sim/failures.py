"""Nodes that fail and come back, and spot nodes that are taken away, drawn by seed from stated distributions.

Times between failures of a node are exponential (``shape`` 1) or Weibull: below 1 for nodes that fail soon
after they came back (as large systems report: Schroeder and Gibson, DSN'06, found 0.7 to 0.8). Repairs are
lognormal. Each node has a chance of its own, by its name, so that a larger fleet fails the same way. A spot
node fails like the others, or is taken away, whichever comes first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heapify, heapreplace

from midstep.policy.intervals import FLEET, interval
from midstep.sim.costs import Costs
from midstep.sim.trace import Job

NEVER_H = math.inf


@dataclass(frozen=True, slots=True)
class Spot:
    """Of each spot node. ``stays_h``: mean hours from being there until it is taken away (Weibull, with that
    ``shape``), of which it is told ``notice_s`` before; ``away_h``: mean hours until it is there again,
    ``away_sigma``: of their logarithm."""

    stays_h: float = 24.0
    away_h: float = 1.0
    notice_s: int = 120
    shape: float = 1.0
    away_sigma: float = 1.0


@dataclass(frozen=True, slots=True)
class Failures:
    """Of each node. ``mtbf_h``: mean hours from being there until it fails; ``repair_h``: mean hours until it
    is back, ``repair_sigma``: of their logarithm. ``save_s``: how often the jobs of rivals save what they
    did, at no cost; 0: never, and a failure costs all that they did. ``spot``: of spot nodes; None: they
    stay."""

    mtbf_h: float = NEVER_H
    repair_h: float = 4.0
    shape: float = 1.0
    repair_sigma: float = 1.0
    save_s: float = 3600.0
    spot: Spot | None = None

    def losses_per_s(self, spot_share: float) -> float:
        """Of a node, how often it goes without a word; so much of the fleet are spot nodes."""
        unsaid = self.spot is not None and self.spot.notice_s == 0
        taken = spot_share / (self.spot.stays_h * 3600) if self.spot is not None and unsaid else 0.0
        return 1.0 / (self.mtbf_h * 3600) + taken


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
_RAREST_PER_S = 1e-12  # where no node goes without a word, intervals are as long as they may be


def by_users(failures: Failures) -> Saves:
    """As the jobs' own scripts do, whatever it costs them."""
    saved = Saved(failures.save_s or None)
    return lambda job, nodes: saved


def by_midstep(failures: Failures, costs: Costs, spot_share: float = 0.0) -> Saves:
    """At the interval at which least is lost (`policy.intervals`), for what a checkpoint costs and for nodes
    that fail as these do."""
    rate = max(failures.losses_per_s(spot_share), _RAREST_PER_S)
    known: dict[int, Saved] = {}

    def saves(job: Job, nodes: int) -> Saved:
        if nodes not in known:
            every = interval(None, FLEET, costs.checkpoint_s, nodes, rate)
            known[nodes] = Saved(every.seconds, costs.checkpoint_s)
        return known[nodes]

    return saves


class _Is(Enum):
    THERE = auto()
    NOTICED = auto()  # it will be taken away
    GONE = auto()


@dataclass(slots=True)
class Turns:
    """What happens to nodes at one moment: those that come back, that are lost, and that are given notice."""

    back: list[int]
    lost: list[int]
    noticed: list[int]


class Faults:
    """What fails when, in order, from a moment on. ``nodes``: their names; ``spot``: which are spot nodes."""

    def __init__(
        self, failures: Failures, nodes: Sequence[str], seed: int, from_s: int, spot: Sequence[bool] = ()
    ) -> None:
        self._failures = failures
        self._spot = [failures.spot if some else None for some in (spot or [False] * len(nodes))]
        self._chances = [random.Random(f"failures {seed} {name}") for name in nodes]
        self._is = [_Is.THERE] * len(nodes)
        self._goes_s = [0] * len(nodes)  # of those that were given notice
        self._taken = [False] * len(nodes)  # the next time it goes, or the last, it is taken away
        self._next: list[tuple[float, int]] = [
            (self._turn_s(node, from_s), node) for node in range(len(nodes))
        ]
        heapify(self._next)

    @property
    def next_s(self) -> float:
        """When something happens to a node next; never, where none of them goes."""
        return self._next[0][0]

    def at(self, now_s: int) -> Turns:
        """What happens now."""
        before: dict[int, _Is] = {}
        while self._next[0][0] <= now_s:
            at_s, node = self._next[0]
            before.setdefault(node, self._is[node])
            heapreplace(self._next, (self._turn(node, int(at_s), now_s, before[node]), node))
        # While nothing ran nobody looked: what failed and came back since then did neither.
        turns = Turns([], [], [])
        for node, was in sorted(before.items()):
            now = self._is[node]
            if was is _Is.GONE and now is not _Is.GONE:
                turns.back.append(node)
            if was is not _Is.GONE and now is _Is.GONE:
                turns.lost.append(node)
            if was is not _Is.NOTICED and now is _Is.NOTICED:
                turns.noticed.append(node)
        return turns

    def _turn(self, node: int, at_s: int, now_s: int, was: _Is) -> float:
        """Its next state; answers when that ends."""
        if self._is[node] is _Is.GONE:
            self._is[node] = _Is.THERE
            return self._turn_s(node, at_s)
        spot = self._spot[node]
        if self._is[node] is _Is.THERE and self._taken[node] and spot is not None and spot.notice_s:
            self._is[node], self._goes_s[node] = _Is.NOTICED, at_s + spot.notice_s
            return self._goes_s[node]
        self._is[node] = _Is.GONE
        back_s = at_s + self._away_s(node)
        # Who was told of it has left it: so it has to be seen to go, and to come back.
        return max(back_s, now_s + 1) if was is _Is.NOTICED else back_s

    def _turn_s(self, node: int, from_s: int) -> float:
        """When a node that is there fails, or is given notice."""
        failures, spot, chance = self._failures, self._spot[node], self._chances[node]
        fails_s = _drawn_s(chance, failures.mtbf_h, failures.shape)
        taken_s = _drawn_s(chance, spot.stays_h, spot.shape) if spot is not None else math.inf
        self._taken[node] = taken_s < fails_s
        told_s = spot.notice_s if spot is not None and self._taken[node] else 0
        return from_s + max(1.0, min(fails_s, taken_s) - told_s)

    def _away_s(self, node: int) -> int:
        spot = self._spot[node]
        mean_h, sigma = self._failures.repair_h, self._failures.repair_sigma
        if spot is not None and self._taken[node]:
            mean_h, sigma = spot.away_h, spot.away_sigma
        mu = math.log(mean_h * 3600) - sigma * sigma / 2
        return max(1, round(self._chances[node].lognormvariate(mu, sigma)))


def _drawn_s(chance: random.Random, mean_h: float, shape: float) -> float:
    """Weibull, in whole seconds."""
    if mean_h == NEVER_H:
        return math.inf
    return max(1, round(chance.weibullvariate(mean_h * 3600 / math.gamma(1 + 1 / shape), shape)))
