"""Who goes first, as one whole number: low goes before high.

Bands: premium; standard that is owed; what is spare, within what a project is due; beyond that, within its
fair share; what is borrowed beyond both. Without quotas all that is spare is in one band. Within a band the
priority. Within that, of spare capacity, whoever is expected to need least to be done (`learned.py`), in
half octaves: so a job that others overtook has to get on by a factor before it overtakes them, and nobody is
stopped and started for a trifle.
"""

from __future__ import annotations

from math import log2

from midstep.model.tiers import Priority

PREMIUM, OWED, SPARE, FAIR, BORROWED = range(5)
BAND, PRIORITY = 100_000, 10_000
UNIT_DEVICE_S = 120.0  # below that all jobs are alike
_PRIORITY = {Priority.HIGH: 0, Priority.MEDIUM: 1, Priority.LOW: 2}


def rank(band: int, priority: Priority, step: int) -> int:
    """See the module."""
    return band * BAND + _PRIORITY[priority] * PRIORITY + step


def step_of(work: float) -> int:
    """The half octave of so many device seconds."""
    return int(2.0 * log2(1.0 + work / UNIT_DEVICE_S))


def begins(step: int) -> float:
    """Device seconds at which a half octave begins."""
    return (2.0 ** (step / 2.0) - 1.0) * UNIT_DEVICE_S
