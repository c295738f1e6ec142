"""Where each rank of a device stands: the nouns of ``leases``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

LOOK_S, LOOK_MAX_S = 0.008, 0.064  # how long after a grant a holder is looked at
BOUND_S = 0.1  # how long a turn may be at first, while another rank waits for it


class Phase(enum.IntEnum):
    """Where a rank stands."""

    LOOSE = 0  # not in our hands: it computes, or waits for something that we do not see
    HOLDING = 1  # it computes
    WAITING = 2  # for an operation that is not done
    READY = 3  # its operation is done, it waits for its turn


class Do(enum.IntEnum):
    """What is to be done to a rank."""

    GRANT = 0  # its results may be handed out
    QUIET = 5  # nobody waits for what the holder posts before it gives up the lease
    LOUD = 6  # somebody does
    WITHHOLD = 1
    OPEN = 2  # nobody minds the gate
    LOWER = 3  # behind all others on its processors
    RAISE = 4


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to be done."""

    do: Do
    rank: int


class Eyes(Protocol):
    """What can be seen of a rank's process."""

    def cpu_s(self, rank: int) -> float:
        """What it has computed since it began; cheap."""
        ...

    def asleep(self, rank: int, all_threads: bool) -> bool:
        """Whether its main thread, or each of its threads, neither computes nor wants to."""
        ...


@dataclass(slots=True)
class Place:
    """One rank's standing, and its sums in seconds by phase."""

    rank: int
    phase: Phase
    since_s: float
    granted_s: float = 0.0  # when it held the lease last
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(Phase))
    turns: int = 0
    slept: int = 0  # turns that ended because it slept
    taken: int = 0  # turns that ended because they were too long
    look_s: float = LOOK_S
    bound_s: float = BOUND_S
    was_taken: bool = False  # since it last gave up the lease itself
    taken_running: int = 0  # how often since it last did so without
    strict: int = 0  # turns for which it is given little time: it computes, it seems, while it waits
    lowered: bool = False
    dozing_s: float | None = None  # it was asleep at the look before this one, with this much computed
