"""Who has which devices, and what each job got of it: the core's accounts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from midstep.sim.errors import Stuck
from midstep.sim.failures import Saved
from midstep.sim.fleet import Fleet
from midstep.sim.outcome import Terms
from midstep.sim.policy import Grant, Move, SimPolicy, Start
from midstep.sim.record import NEVER, Record
from midstep.sim.trace import MILLI

_NOTHING = Saved(None)


class Books:
    """``used``: milli-devices that jobs have; ``there``: devices of nodes that have not failed; ``down``: how
    many nodes have."""

    def __init__(self, fleet: Fleet, policy: SimPolicy, terms: Terms) -> None:
        self.used, self.there, self.down = 0, fleet.devices, 0
        self._fleet, self._policy, self._terms = fleet, policy, terms
        self._room = [node.devices * MILLI for node in fleet.nodes]  # milli-devices free, by node
        self._fail = terms.failures is not None
        # Who is on a node, and how jobs are saved: only where nodes fail.
        self._on: list[set[int]] = [set() for _ in fleet.nodes] if self._fail else []
        self._gone: set[int] = set()

    def give(self, now_s: int, record: Record, action: Start | Move, overhead_s: int) -> None:
        """Devices to a job that has none. Stuck: there are not so many."""
        grant = action.grant
        for node, count in zip(grant.nodes, grant.counts):
            self._room[node] -= count * grant.milli
            if self._room[node] < 0 or count < 0:
                name = self._fleet.nodes[node].name
                raise Stuck(f"{self._policy.name} gives more of {name} than there is, at {now_s}")
        self.used += grant.devices * grant.milli
        record.grant, record.granted_s, record.rate = grant, now_s, action.rate
        if self._fail:
            for node in grant.nodes:
                self._on[node].add(record.job.index)
            record.rate *= self._saved(record).share
        record.since_s = now_s + overhead_s
        record.lost_device_s += overhead_s * grant.devices * grant.milli / MILLI
        record.done_s = record.since_s + record.left_s / record.rate + self._policy.end_lag_s
        record.ends_s = math.ceil(record.done_s - 1e-9)
        if self._terms.watch:
            self._terms.watch.taken(record.job, grant)

    def stop(self, now_s: int, record: Record, lost_s: float) -> Grant:
        """A job's devices, before it has ended; ``lost_s``: of its work, to be done again."""
        record.left_s = record.left_at(now_s) + lost_s
        record.lost_device_s += lost_s * record.job.size
        grant = self.take_back(now_s, record)
        record.forget(lost_s)
        record.ends_s = NEVER
        return grant

    def take_back(self, now_s: int, record: Record) -> Grant:
        """A job's devices."""
        grant = record.grant
        assert grant is not None
        for node, count in zip(grant.nodes, grant.counts):
            self._room[node] += count * grant.milli
        devices = grant.devices * grant.milli
        self.used -= devices
        held_s = now_s - record.granted_s
        if now_s < record.since_s:  # what was counted as lost in advance was not all
            record.lost_device_s -= (record.since_s - now_s) * devices / MILLI
        elif self._fail:
            paused_s = (now_s - record.since_s) * (1.0 - self._saved(record).share)
            record.lost_device_s += paused_s * devices / MILLI
        record.remember(now_s)
        record.run_s += held_s
        record.held_device_s += held_s * devices / MILLI
        record.grant = None
        if self._fail:
            for node in grant.nodes:
                self._on[node].discard(record.job.index)
        if self._terms.watch:
            self._terms.watch.given_back(record.job)
        return grant

    def on(self, node: int) -> list[int]:
        """Who has devices there."""
        return sorted(self._on[node])

    def lost_s(self, now_s: int, record: Record) -> float:
        """Work that a job loses if it is cut off now."""
        ran_s = max(0, now_s - record.since_s)
        lost_s = self._saved(record).lost_s(ran_s)
        done_s = record.job.duration_s - record.left_at(now_s)
        return max(0.0, done_s) if lost_s is None else lost_s * record.rate

    def leaves(self, node: int) -> None:
        """It was given notice: if it has been emptied, it is counted as gone from now on."""
        if not self._on[node]:
            self.lost(node)

    def lost(self, node: int) -> None:
        """It is gone, and has nobody."""
        if node in self._gone:
            return  # since it was given notice
        self.there -= self._fleet.nodes[node].devices
        self.down += 1
        self._room[node] = 0
        self._gone.add(node)
        if self._terms.watch:
            self._terms.watch.lost(node)

    def back(self, node: int) -> None:
        """It is there again."""
        self.there += self._fleet.nodes[node].devices
        self.down -= 1
        self._room[node] = self._fleet.nodes[node].devices * MILLI
        self._gone.remove(node)
        if self._terms.watch:
            self._terms.watch.back(node)

    def check(self, records: Sequence[Record]) -> None:
        """See `Core.check`."""
        room = [
            0 if index in self._gone else node.devices * MILLI for index, node in enumerate(self._fleet.nodes)
        ]
        assert sum(room) == self.there * MILLI and len(self._gone) == self.down
        for record in records:
            if record.grant is not None:
                assert record.end_s == NEVER and record.since_s != NEVER, record
                for node, count in zip(record.grant.nodes, record.grant.counts):
                    room[node] -= count * record.grant.milli
        assert room == self._room and min(room, default=0) >= 0, "devices given twice"
        assert self.used == self.there * MILLI - sum(room)

    def _saved(self, record: Record) -> Saved:
        if self._terms.saves is None or record.grant is None:
            return _NOTHING
        return self._terms.saves(record.job, len(record.grant.nodes))
