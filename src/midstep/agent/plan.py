"""What a keeper does next: a pure function of what a node has of a job and what is wanted of it.

| goal | the node has | move |
| --- | --- | --- |
| HOLD, newer epoch | nothing | HOLD (prepare, or restore from the source) |
| | the same ranks, no source or stopped at the source's cut | ADOPT |
| | some of the homes placed here, stopped at the source's cut | CHANGE (others end, or are restored) |
| | anything else | CLEAR, then HOLD |
| HOLD of ranks that have run on | nothing, or not all of them | REFUSE (they are lost: back to a snapshot) |
| RUN | HELD | START |
| | DUMPED, FAILED and intact (ranks stopped or running), proxy there | RESUME |
| | the same, proxy gone | LOSE: say so, a new epoch is needed |
| DUMP | RUNNING, FAILED and intact, DUMPED at another cut | DUMP (proxy gone: LOSE) |
| GONE | anything | END |
| any but GONE, the controller lost for too long | ranks that run | FENCE |
| none | GONE | FORGET |
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from midstep.agent.journal import Aim, JobEntry
from midstep.model.phase import Goal, Phase
from midstep.wire.agent import Assignment


class Move(enum.Enum):
    """One bounded piece of a keeper's work."""

    NOTHING = enum.auto()
    HOLD = enum.auto()
    ADOPT = enum.auto()
    CHANGE = enum.auto()
    CLEAR = enum.auto()
    START = enum.auto()
    RESUME = enum.auto()
    DUMP = enum.auto()
    END = enum.auto()
    FORGET = enum.auto()
    LOSE = enum.auto()
    FENCE = enum.auto()
    REFUSE = enum.auto()  # the goal presumes what this node does not have


@dataclass(frozen=True, slots=True)
class Live:
    """What is true of the machine now, beside the record."""

    alive: frozenset[int] = frozenset()  # ranks whose processes are there
    proxy: bool = False
    files: bool = False  # homes of the job lie here
    fenced: bool = False  # the controller has been lost for too long: nothing may run


def aim_of(wanted: Assignment) -> Aim:
    """What an assignment asks for."""
    return Aim(wanted.epoch, wanted.goal, wanted.target)


def next_move(entry: JobEntry | None, live: Live, wanted: Assignment | None) -> Move:
    """The next move; NOTHING when the goal is reached, failed for good, or fenced by a newer epoch."""
    if live.fenced:
        return Move.FENCE if entry is not None and live.alive and _may_run(entry) else Move.NOTHING
    if wanted is None:
        return Move.FORGET if entry is not None and entry.phase is Phase.GONE else Move.NOTHING
    if entry is not None and entry.epoch > wanted.epoch:
        return Move.NOTHING
    if entry is not None and entry.phase is Phase.FAILED and entry.tried == aim_of(wanted):
        return Move.NOTHING
    match wanted.goal:
        case Goal.HOLD:
            return _to_hold(entry, live, wanted)
        case Goal.RUN:
            return _to_run(entry, live, wanted)
        case Goal.DUMP:
            return _to_dump(entry, live, wanted)
        case Goal.GONE:
            done = entry is not None and entry.phase is Phase.GONE and entry.epoch == wanted.epoch
            return Move.NOTHING if done else Move.END


def _may_run(entry: JobEntry) -> bool:
    stands = (Phase.HOLDING, Phase.HELD, Phase.DUMPED, Phase.ENDING, Phase.GONE)
    return entry.phase not in stands and not entry.frozen


def _to_hold(entry: JobEntry | None, live: Live, wanted: Assignment) -> Move:
    if entry is None or (entry.phase is Phase.GONE and entry.epoch < wanted.epoch):
        return Move.REFUSE if wanted.adopt else Move.HOLD
    if entry.epoch == wanted.epoch:
        return Move.NOTHING
    if _whole(entry, live, wanted):
        here, there = set(entry.ranks), {r.rank for r in wanted.place.ranks}
        if here == there:
            return Move.ADOPT
        if here & there and wanted.source is not None:
            return Move.CHANGE
    if wanted.adopt and not _never_ran(entry):
        return Move.REFUSE
    return Move.CLEAR if live.alive or live.files or live.proxy else Move.HOLD


def _never_ran(entry: JobEntry) -> bool:
    """Its ranks were not launched yet, though others were: they may still be, as those wait for them."""
    return entry.phase in (Phase.HELD, Phase.PROXY_LOST) and not entry.processes and not entry.exits


def _whole(entry: JobEntry, live: Live, wanted: Assignment) -> bool:
    """Processes may go on under the new epoch only from the very cut that the other nodes go on from."""
    same_cut = wanted.source is None or wanted.source.snapshot_id == entry.cut
    anything = bool(entry.processes or entry.exits)  # ranks that have all ended are not started again
    return anything and live.alive == frozenset(entry.processes) and same_cut


def _to_run(entry: JobEntry | None, live: Live, wanted: Assignment) -> Move:
    if entry is None or entry.epoch < wanted.epoch:
        return Move.REFUSE
    match entry.phase:
        case Phase.HELD:
            return Move.START if live.proxy else Move.LOSE
        case Phase.DUMPED:
            return Move.RESUME if live.proxy else Move.LOSE
        case Phase.FAILED if entry.failure is not None and entry.failure.intact:
            return Move.RESUME if live.proxy else Move.LOSE
        case _:
            return Move.NOTHING


def _to_dump(entry: JobEntry | None, live: Live, wanted: Assignment) -> Move:
    if entry is None or entry.epoch < wanted.epoch:
        return Move.REFUSE
    match entry.phase:
        case Phase.DUMPED if entry.target == wanted.target:
            return Move.NOTHING
        case Phase.FAILED if entry.failure is None or not entry.failure.intact:
            return Move.NOTHING
        case Phase.RUNNING | Phase.DUMPED | Phase.FAILED:
            return Move.DUMP if live.proxy else Move.LOSE
        case Phase.HELD:
            return Move.REFUSE
        case _:
            return Move.NOTHING
