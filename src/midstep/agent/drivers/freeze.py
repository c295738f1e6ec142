"""Stop every process of some ranks at once, and let them go on.

Stopping goes down the tree: a parent that sleeps must be stopped before its children are, or it might see
them stop (a shell with job control would report it), and a child that its parent waits for inside vfork()
must get to its exec. A parent that computes can do neither; its children need not wait for it. Letting go
climbs up the tree, for the same reason.

What the job had stopped itself must stay stopped. A rank cannot stop its own PID 1, so a stopped PID 1 says
that we were here before (an agent that died in a freeze): then the list that was written into the cell
first is believed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from midstep.agent.drivers import lent_names, stopped_note
from midstep.agent.drivers.errors import RankGone, TooSlow
from midstep.agent.drivers.follow import RankProcess, alive, children, inner_pid, processes, stat_of
from midstep.agent.drivers.procfs import give_own_proc

_GONE = (FileNotFoundError, ProcessLookupError)
_ASLEEP_S = 0.0002


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a freeze found. `stopped_before[rank]`: pids, in the rank's own numbering, that the job itself
    had stopped.
    """

    stopped_before: dict[int, tuple[int, ...]]
    duration_s: float

    def to_json(self) -> dict[str, object]:
        return {
            "stopped_before": {str(r): list(p) for r, p in self.stopped_before.items()},
            "duration_s": self.duration_s,
        }

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Frozen:
        stopped = cast("dict[str, list[int]]", data["stopped_before"])
        return Frozen({int(r): tuple(p) for r, p in stopped.items()}, cast("float", data["duration_s"]))


def freeze(ps: Sequence[RankProcess], deadline_s: float) -> Frozen:
    """Stop all of `ps`; when it returns, no thread of theirs runs. RankGone or TooSlow: all of them run on
    as before.
    """
    begun = time.monotonic()
    walks = [_Walk(p) for p in ps]
    try:
        for walk in walks:
            walk.begin()
        # All ranks get their first signals before any is waited for: a rank runs on for as long as another
        # one's walk.
        while [walk for walk in walks if not walk.advance()]:
            if time.monotonic() - begun > deadline_s:
                stuck = "; ".join(walk.describe() for walk in walks if not walk.done)
                raise TooSlow(f"not frozen within {deadline_s:g} s: {stuck}")
            time.sleep(_ASLEEP_S)
    except BaseException:
        for walk in walks:
            walk.undo()
        raise
    stopped = {walk.p.rank: tuple(sorted(walk.inner_stopped())) for walk in walks}
    return Frozen(stopped, time.monotonic() - begun)


def thaw(ps: Sequence[RankProcess], frozen: Frozen) -> None:
    """Let all of `ps` go on, but for what the job itself had stopped. Harmless on ranks that run or have
    ended.
    """
    for p in ps:
        if alive(p):
            give_own_proc(p.init_pid)  # if a dump was cut off
            lent_names.give_back(p)
        keep = set(frozen.stopped_before.get(p.rank, ()))
        for pid in reversed(processes(p)):
            if not keep or inner_pid(pid) not in keep:
                _send(pid, signal.SIGCONT)
        stopped_note.remove(p)


class _Walk:
    """The freezing of one rank. `waiting`: signalled, not seen stopped yet."""

    def __init__(self, p: RankProcess) -> None:
        self.p = p
        self.job_stopped: set[int] = set()  # pids as seen here
        self.waiting: set[int] = set()
        self.passed: set[int] = set()  # waiting themselves, but their children are being stopped already
        self.stopped: set[int] = set()
        self.resumed = False  # a freeze before this one did not get to its end
        self.done = False

    def begin(self) -> None:
        if not alive(self.p):
            raise RankGone(f"rank {self.p.rank} (pid {self.p.init_pid}) has ended")
        there = processes(self.p)
        self.resumed = _state(self.p.init_pid) == "T"
        if self.resumed:
            noted = stopped_note.read(self.p)
            self.job_stopped = {pid for pid in there if noted and inner_pid(pid) in noted}
        else:
            self.job_stopped = {pid for pid in there[1:] if _state(pid) == "T"}
            stopped_note.write(self.p, self.inner_stopped())
        self._stop(self.p.init_pid)

    def advance(self) -> bool:
        """Go as far down the tree as is possible without waiting; True when everything is stopped."""
        while not self.done:
            ready = {pid for pid in self.waiting if _is_stopped(pid)}
            passed = {pid for pid in self.waiting - ready - self.passed if self._cannot_see_children(pid)}
            for pid in sorted(ready | passed):
                self._stop(*children(pid))
            self.waiting -= ready
            self.stopped |= ready
            self.passed |= passed
            if not self.waiting:  # a process whose parent ended while we walked has moved up to PID 1
                self._stop(*processes(self.p))
                self.done = not self.waiting
            if not ready and not passed:
                break
        return self.done

    def undo(self) -> None:
        for pid in reversed(processes(self.p)):
            if pid not in self.job_stopped:
                _send(pid, signal.SIGCONT)
        stopped_note.remove(self.p)

    def inner_stopped(self) -> set[int]:
        return {inner for pid in self.job_stopped if (inner := inner_pid(pid))}

    def describe(self) -> str:
        states = ", ".join(f"{_name(pid)} (pid {pid}, state {_state(pid)})" for pid in sorted(self.waiting))
        return f"rank {self.p.rank}: {states}"

    def _stop(self, *pids: int) -> None:
        for pid in pids:
            if pid in self.waiting or pid in self.stopped:
                continue
            if not self.resumed and pid not in self.job_stopped and _state(pid) == "T":
                self.job_stopped.add(pid)  # the job stopped it after we had begun
                stopped_note.write(self.p, self.inner_stopped())
            _send(pid, signal.SIGSTOP)
            self.waiting.add(pid)

    def _cannot_see_children(self, pid: int) -> bool:
        """With SIGSTOP pending it makes no more children, nor asks for their state, before it stops."""
        states = _thread_states(pid)
        return "D" not in states and (pid == self.p.init_pid or _state(pid) == "R")


def _is_stopped(pid: int) -> bool:
    """Every thread is stopped, or it is a zombie, or gone."""
    return set(_thread_states(pid)) <= set("TtZX")


def _thread_states(pid: int) -> str:
    states = ""
    with contextlib.suppress(*_GONE):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(*_GONE):
                states += stat_of(f"/proc/{pid}/task/{thread}/stat")[0]
    return states


def _state(pid: int) -> str:
    try:
        return stat_of(f"/proc/{pid}/stat")[0]
    except _GONE:
        return ""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except _GONE:
        return "?"


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
