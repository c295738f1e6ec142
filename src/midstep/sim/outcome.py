"""What a run is made under, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from midstep.sim.costs import STATED, Costs
from midstep.sim.failures import Failures, Saves
from midstep.sim.fleet import Fleet
from midstep.sim.record import Record
from midstep.sim.watch import Watch


@dataclass(slots=True)
class Timeline:
    """What changed when: from ``at_s[i]`` on, until the next. Devices as fractions count in part. ``there``:
    devices of nodes that have not failed; ``idle``: those that are free in clusters where a waiting job would
    fit; ``disturbed``: how often jobs were stopped, moved or cut off up to then."""

    at_s: list[int] = field(default_factory=list[int])
    used: list[float] = field(default_factory=list[float])
    waiting_devices: list[float] = field(default_factory=list[float])
    waiting_jobs: list[int] = field(default_factory=list[int])
    running_jobs: list[int] = field(default_factory=list[int])
    there: list[int] = field(default_factory=list[int])
    idle: list[int] = field(default_factory=list[int])
    disturbed: list[int] = field(default_factory=list[int])

    def note(
        self,
        now_s: int,
        used: float,
        waiting_devices: float,
        waiting_jobs: int,
        running_jobs: int,
        there: int,
        idle: int,
        disturbed: int,
    ) -> None:
        """From now on; what was said of the same second before is replaced."""
        if self.at_s and self.at_s[-1] == now_s:
            for column in (self.at_s, self.used, self.waiting_devices, self.waiting_jobs, self.running_jobs):
                column.pop()
            for column in (self.there, self.idle, self.disturbed):
                column.pop()
        self.at_s.append(now_s)
        self.used.append(used)
        self.waiting_devices.append(waiting_devices)
        self.waiting_jobs.append(waiting_jobs)
        self.running_jobs.append(running_jobs)
        self.there.append(there)
        self.idle.append(idle)
        self.disturbed.append(disturbed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run. ``moments``: how often the policy decided; ``where``: of each job, by index, the cluster that it
    was bound to, "" if to none; empty: none was."""

    policy: str
    fleet: Fleet
    records: list[Record]
    timeline: Timeline
    moments: int
    where: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run is made under, besides its policy. ``failures`` None: no node fails. ``saves``: how often
    jobs are saved; ``watch``: sees what is idle."""

    costs: Costs = STATED
    failures: Failures | None = None
    saves: Saves | None = None
    watch: Watch | None = None
    seed: int = 0
    where: list[str] = field(default_factory=list[str])
