"""How often to save a running job.

The more often, the less work is lost with its processes and the more time goes into saving. For a pause C and
a mean time M between losses the sum of both is least about every sqrt(2 C M) (J. W. Young, "A first order
approximation to the optimum checkpoint interval", Communications of the ACM 17(9), 1974); we take the next
terms as well (J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
Future Generation Computer Systems 22(3), 2006). M is what this fleet has shown, a node lost being as likely
on each: with nothing observed yet, a prior decides, which what is observed outweighs in time.

Whatever comes out, saving costs at most `STEADY_COST` of the time, unless the user names the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from midstep.model.job import CheckpointRule

STEADY_COST = 0.02
ARCHIVED = 3.0  # what is written beside the ranks is read, hashed and packed by the archiver: twice that
# As if one loss had been seen in so much time: reports of large clusters are between 10 and 60 node-days.
PRIOR_LOSSES = 1.0
PRIOR_NODE_S = 20 * 86400.0
FIRST_PAUSE_S = 2.0  # taken for what one costs until the first has been measured
FLEET = CheckpointRule(min_s=60.0, max_s=3600.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """``seconds`` None: none are taken. ``why``: what decided, in words."""

    seconds: float | None
    why: str


def loss_rate(losses: int, node_s: float) -> float:
    """How often a node loses what runs on it, per second: what was observed, and the prior."""
    return (losses + PRIOR_LOSSES) / (max(0.0, node_s) + PRIOR_NODE_S)


def best_s(pause_s: float, between_s: float) -> float:
    """The interval from the beginning of one checkpoint to that of the next at which least time is lost, for
    losses ``between_s`` apart on average."""
    if pause_s <= 0:
        return 0.0
    if pause_s >= 2 * between_s:  # whatever is saved is lost before it pays
        return between_s + pause_s
    x = pause_s / (2 * between_s)
    return math.sqrt(2 * pause_s * between_s) * (1 + math.sqrt(x) / 3 + x / 9)


def interval(
    rule: CheckpointRule | None, fleet: CheckpointRule, pause_s: float | None, nodes: int, rate: float,
    beside_s: float | None = None,
) -> Interval:  # fmt: skip
    """How often a job on so many nodes is saved. ``rule``: its own word, ``fleet``: where it has none;
    ``pause_s``: how long it stood still for a checkpoint; ``beside_s``: processor time of a node that was
    spent on one beside its ranks; ``rate``: as `loss_rate` answers."""
    asked = fleet if rule is None else rule
    if asked.off:
        return Interval(None, "off, by the fleet's setting" if rule is None else "off, as asked")
    if asked.every_s is not None:
        return Interval(asked.every_s, "the fleet's setting" if rule is None else "as asked")
    cost_s = FIRST_PAUSE_S if pause_s is None else pause_s + ARCHIVED * (beside_s or 0.0)
    between_s = 1.0 / (rate * max(1, nodes))
    best, why = best_s(cost_s, between_s), f"a loss is expected every {_words(between_s)}"
    least = _own(asked.min_s, fleet.min_s, FLEET.min_s)
    if best < least:
        best, why = least, "not more often than set"
    most = _own(asked.max_s, fleet.max_s, FLEET.max_s)
    if best > most:
        best, why = most, "not less often than set"
    cheapest = cost_s / STEADY_COST
    if best < cheapest:
        best, why = cheapest, f"so that it costs {STEADY_COST:.0%} of the time"
    return Interval(best, why)


def _own(*values: float | None) -> float:
    return next((value for value in values if value is not None), 0.0)


def _words(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
