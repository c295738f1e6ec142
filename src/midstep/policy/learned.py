"""What ended jobs teach about those that are not done: after so much work, how much more does it take, for
each job that is then done?

That is the Gittins index: of all ways to go on with jobs of a kind up to some amount of work, the best
ratio of work to jobs done (J. C. Gittins, 1979). Nothing is known of a job's own duration; kinds are the
project and the size, and what few jobs of a kind have shown is filled up with what all of that size, and
all, have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from midstep.policy.asks import Ask
from midstep.policy.order import begins, step_of

Floats = NDArray[np.float64]

STEPS = 90
FIRST = 200  # with so many ended jobs it begins to say something
REFRESH = 0.1  # tables are made anew when that share more jobs have ended
WEIGHT = 30.0  # a kind with so many ended jobs counts half, the wider one half
Kind = tuple[str, int]
_BEGIN = np.array([begins(step) for step in range(STEPS + 1)])
_MIDDLE = (_BEGIN[:-1] + _BEGIN[1:]) / 2
# From each half octave (a row) to each (a column): whether that is later, work to its middle, to its end.
_LATER = np.triu(np.ones((STEPS, STEPS)))
_MORE = np.triu(np.maximum(0.0, _MIDDLE[None, :] - _BEGIN[:-1, None]))
_FURTHER = np.maximum(0.0, _BEGIN[None, 1:] - _BEGIN[:-1, None])


class Learned:
    """Counts of ended jobs by kind and by the half octave of their work, and tables from them."""

    def __init__(self) -> None:
        self._counts: dict[Kind, Floats] = {}
        self._tables: dict[Kind, list[int]] = {}
        self._ended = 0
        self._renew_at = FIRST

    def ended(self, ask: Ask, work: float) -> None:
        """A job is done, with so many device seconds."""
        step = min(STEPS - 1, step_of(work))
        for kind in _kinds(ask):
            counts = self._counts.get(kind)
            if counts is None:
                counts = self._counts[kind] = np.zeros(STEPS)
            counts[step] += 1
        self._ended += 1
        if self._ended >= self._renew_at:
            self._tables.clear()
            self._renew_at = int(self._ended * (1.0 + REFRESH)) + 1

    def step(self, ask: Ask, step: int) -> int:
        """Where a job stands that has had work of that half octave: as the half octave of a job of which
        nothing is known and that needs as much for being done."""
        if self._ended < FIRST:
            return step
        own = _kinds(ask)[-1]
        table = self._tables.get(own)
        if table is None:
            table = self._tables[own] = _table(self._mixed(ask))
        return table[min(step, STEPS - 1)]

    def _mixed(self, ask: Ask) -> Floats:
        mixed = np.zeros(STEPS)
        for kind in _kinds(ask):
            counts = self._counts.get(kind)
            if counts is None:
                continue
            total = float(counts.sum())
            share = total / (total + WEIGHT)
            mixed = (1 - share) * mixed + share * counts / total
        return mixed


def _kinds(ask: Ask) -> tuple[Kind, ...]:
    """From the widest to its own."""
    size = min(ask.devices.bit_length(), 5)
    return (("", 0), ("", size), (ask.project, size))


def _table(shares: Floats) -> list[int]:
    """Half octave -> that of the least work for a job done, going on from there as far as is best."""
    done = np.cumsum(shares * _LATER, axis=1)
    spent = np.cumsum(shares * _MORE, axis=1)
    left = (done[:, -1:] - done) * _FURTHER
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(done > 1e-9, (spent + left) / done, np.inf)
    best = ratio.min(axis=1)
    steps = np.searchsorted(_BEGIN, np.where(np.isfinite(best), best, 0.0), side="right") - 1
    # Where nothing is known: as if the next job done took as much as this one has had.
    return np.where(np.isfinite(best), steps, np.arange(STEPS)).tolist()
