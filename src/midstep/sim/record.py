"""What becomes of each job, kept by the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from midstep.sim.trace import Job

if TYPE_CHECKING:
    from midstep.sim.policy import Grant

NEVER = -1
Stretch = tuple[int, float, float]


@dataclass(slots=True)
class Record:
    """One job. ``left_s``: work that is left, in seconds at rate 1, as of ``since_s``; from then on it
    shrinks, while the job has devices. ``done_s``: when that comes to its end, if nothing changes;
    ``ends_s``: the same, and devices are held for whole seconds."""

    job: Job
    left_s: float
    grant: Grant | None = None
    rate: float = 1.0
    since_s: int = NEVER  # the present stretch makes progress from here on
    granted_s: int = NEVER  # the present stretch began
    done_s: float = NEVER
    ends_s: int = NEVER
    first_s: int = NEVER
    end_s: int = NEVER
    run_s: int = 0  # time with devices, of stretches that are over
    held_device_s: float = 0.0  # device time with them
    lost_device_s: float = 0.0  # of that, without progress or done again
    stops: int = 0
    moves: int = 0
    cuts: int = 0  # how often a node of it failed
    broken: bool = False  # the last stretch ended so
    refused: str = ""  # it was not admitted, and why
    unguaranteed: str = ""  # it was admitted without a guarantee, and why
    # Stretches that are over, of progress that lasted: from, until, at what rate.
    stretches: list[Stretch] = field(default_factory=list[Stretch])

    def left_at(self, now_s: int) -> float:
        """Work that is left at a moment."""
        if self.grant is None or now_s <= self.since_s:
            return self.left_s
        return max(0, self.left_s - (now_s - self.since_s) * self.rate)

    def run_at(self, now_s: int) -> int:
        """Time with devices up to a moment."""
        return self.run_s + (now_s - self.granted_s if self.grant is not None else 0)

    def remember(self, now_s: int) -> None:
        """The present stretch is over."""
        if now_s > self.since_s:
            self.stretches.append((self.since_s, now_s, self.rate))

    def forget(self, work_s: float) -> None:
        """So much of the newest progress is to be done again."""
        while work_s > 0 and self.stretches:
            from_s, until_s, rate = self.stretches.pop()
            done_s = (until_s - from_s) * rate
            if done_s > work_s:
                self.stretches.append((from_s, until_s - work_s / rate, rate))
            work_s -= done_s

    @property
    def jct_s(self) -> int:
        """From submission to end."""
        return self.end_s - self.job.submit_s

    @property
    def wait_s(self) -> int:
        """Time without devices, from submission to end."""
        return self.jct_s - self.run_s
