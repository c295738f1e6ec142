"""Making room by moving others: live migration of small jobs off a node, so that a larger one finds its
devices together. Nobody loses any devices by it; those who move pause for a moment, and one whose guarantee
would not be kept over that pause (it has just begun, or has been moved often) moves last of all, or not."""

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
        able = [
            other
            for other in floor.on.get(place, ())
            if _movable(other) and other.moved_s <= now_s - settle_s and hand.can_move(other, now_s)
        ]
        movers = _fewest(able, devices - pool.left[place])
        if movers and _move_away(floor, place, movers, job, hand, now_s):
            return [(place, devices)]
    return None


def in_the_way(floor: Floor, job: Job, hand: Hand, now_s: float) -> list[tuple[int, list[Job]]]:
    """As many nodes as a job needs, those where the fewest have to move at the cost of their own guarantee,
    and then the fewest devices have to be left by others that rank before spare capacity, and who these are:
    all smaller than the job. Empty: there are not so many such nodes."""
    pool, devices = floor.pool, job.ask.devices
    each = min(devices, pool.largest)
    count = -(-devices // each) if each else 0
    nodes: list[tuple[int, int, list[Job]]] = []  # devices that have to be left, place, who has some there
    for place, size in enumerate(pool.sizes):
        if not each or size < each or pool.closed[place]:
            continue
        owed = [it for it in floor.on.get(place, ()) if it.rank < SPARE * BAND and it is not job]
        whole = sum(floor.at(it, place) for it in owed if it.slot < 0)
        needed = whole + len({it.slot for it in owed if it.slot >= 0}) - (size - each)
        nodes.append((needed, place, owed))
    nodes.sort(key=lambda node: node[:2])
    found: list[tuple[int, int, int, list[Job]]] = []
    for needed, place, owed in nodes:
        if len(found) >= count and found[count - 1][:2] < (0, needed):
            break  # those that follow have to leave more
        able = [(hand.can_move(it, now_s), it) for it in owed if _movable(it) and it.devices < each]
        movers = _enough(able, needed)
        if movers is not None:
            at_cost = sum(not can for can, _ in movers)
            found.append((at_cost, sum(it.devices for _, it in movers), place, [it for _, it in movers]))
            found.sort(key=lambda item: item[:3])
    return [(place, movers) for *_, place, movers in found[:count]] if len(found) >= count else []


def _enough(able: list[tuple[bool, Job]], needed: int) -> list[tuple[bool, Job]] | None:
    """Of these, such as have so many devices together: those that can move first, and as few devices more
    than are needed as can be, for what moves has to find them together elsewhere."""
    movers: list[tuple[bool, Job]] = []
    for can in (True, False):
        alike = sorted((job for its, job in able if its is can), key=lambda it: (-it.devices, it.ask.job_id))
        over: Job | None = None  # the smallest that is more than enough
        for job in alike:
            if job.devices > needed > 0:
                over = job
            elif needed > 0:
                movers.append((can, job))
                needed -= job.devices
        if needed > 0 and over is not None:
            movers.append((can, over))
            needed -= over.devices
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


def _fewest(able: list[Job], needed: int) -> list[Job]:
    """Such as have so many devices together."""
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
