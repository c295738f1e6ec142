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


def in_the_way(floor: Floor, job: Job) -> list[tuple[int, list[Job]]]:
    """As many nodes as a job needs, those where the fewest devices have to be left by others that rank before
    spare capacity, and who these are: all smaller than the job. Empty: there are not so many such nodes."""
    pool, devices = floor.pool, job.ask.devices
    each = min(devices, pool.largest)
    found: list[tuple[int, int, list[Job]]] = []
    for place, size in enumerate(pool.sizes):
        if not each or size < each or pool.closed[place]:
            continue
        owed = [other for other in floor.on.get(place, ()) if other is not job and other.rank < SPARE * BAND]
        movers = _enough(owed, sum(floor.at(other, place) for other in owed) - (size - each), each)
        if movers is not None:
            found.append((sum(mover.devices for mover in movers), place, movers))
    count = -(-devices // each) if each else 0
    found.sort(key=lambda item: item[:2])
    return [(place, movers) for _, place, movers in found[:count]] if len(found) >= count else []


def _enough(owed: list[Job], needed: int, below: int) -> list[Job] | None:
    """Of these, such as have so many devices together, the largest first."""
    movers: list[Job] = []
    able = [job for job in owed if _movable(job) and job.devices < below]
    for job in sorted(able, key=lambda job: (-job.devices, job.ask.job_id)):
        if needed > 0:
            movers.append(job)
            needed -= job.devices
    return movers if needed <= 0 else None


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
