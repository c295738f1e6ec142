"""Making room by moving others: live migration of small jobs off a node, so that a larger one finds its
devices together. Nobody loses any devices by it; those who move pause for a moment."""

from __future__ import annotations

from midstep.policy.asks import MILLI
from midstep.policy.causes import MadeRoom
from midstep.policy.floor import Floor
from midstep.policy.hand import Hand
from midstep.policy.ledger import Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.pool import Spots

NODES = 8  # looked at


def make_room(
    floor: Floor, job: Job, devices: int, hand: Hand, now_s: float, settle_s: float
) -> Spots | None:
    """So many devices on one node, if they are free in the pool and few enough have to move: less than
    half of what is gained. Spots that are free now; None: nothing was done."""
    pool = floor.pool
    if devices > pool.free or devices > pool.largest:
        return None
    for place in _roomy(floor, devices):
        movers = _movers(floor, place, devices - pool.left[place], now_s - settle_s)
        if movers and _move_away(floor, place, movers, job, hand, now_s):
            return [(place, devices)]
    return None


def least_owed(floor: Floor, devices: int) -> list[int]:
    """As many nodes as so many devices need, those with the fewest devices of jobs that rank before spare
    capacity, if all of these can be moved; empty: there are none."""
    pool = floor.pool
    each = min(devices, pool.largest)
    held: list[tuple[int, int]] = []
    for place, size in enumerate(pool.sizes):
        if size < each or pool.closed[place]:
            continue
        owed = [job for job in floor.on.get(place, ()) if job.rank < SPARE * BAND]
        if all(_movable(job) for job in owed):
            held.append((sum(job.devices for job in owed), place))
    count = -(-devices // each) if each else 0
    return [place for _, place in sorted(held)[:count]] if len(held) >= count else []


def movers_off(floor: Floor, place: int) -> list[Job]:
    """Those that have to leave it for `least_owed`, the largest first."""
    owed = [job for job in floor.on.get(place, ()) if job.rank < SPARE * BAND]
    return sorted(owed, key=lambda job: (-job.devices, job.ask.job_id))


def _movable(job: Job) -> bool:
    return job.ask.may_move and job.ask.milli == MILLI and len(job.spots) == 1 and job.homes is not None


def _roomy(floor: Floor, devices: int) -> list[int]:
    """Nodes that are large enough, the ones with the most free first."""
    pool = floor.pool
    found: list[int] = []
    for free in range(min(devices - 1, pool.largest), (devices - 1) // 2, -1):
        bits = pool.by_free[free]
        while bits and len(found) < NODES:
            low = bits & -bits
            bits ^= low
            if pool.sizes[low.bit_length() - 1] >= devices:
                found.append(low.bit_length() - 1)
    return found


def _movers(floor: Floor, place: int, needed: int, settled_s: float) -> list[Job]:
    """The fewest that have so many devices there, all of their own, and may move."""
    able = [job for job in floor.on.get(place, ()) if _movable(job) and job.moved_s <= settled_s]
    able.sort(key=lambda job: (job.snapshot_bytes, -job.devices, job.ask.job_id))
    chosen: list[Job] = []
    for job in able:
        if needed <= 0:
            break
        if job.devices <= needed or not chosen:
            chosen.append(job)
            needed -= job.devices
    return chosen if needed <= 0 else []


def _move_away(floor: Floor, place: int, movers: list[Job], to: Job, hand: Hand, now_s: float) -> bool:
    """All of them, or none: first it is tried out."""
    pool = floor.pool
    pool.close(place)
    taken: list[tuple[Job, Spots]] = []
    for mover in movers:
        assert mover.homes is not None
        spots = pool.find(mover.homes, mover.sharing)
        if spots is None:
            break
        pool.take(spots)
        taken.append((mover, spots))
    for _, spots in taken:
        pool.give_back(spots)
    if len(taken) == len(movers):
        for mover, spots in taken:
            floor.lift(mover)
            hand.resize(mover, floor, mover.sharing, spots, MadeRoom(to.ask.job_id), now_s)
    pool.open(place)
    return len(taken) == len(movers)
