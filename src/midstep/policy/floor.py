"""A pool with who is on it."""

from __future__ import annotations

from midstep.policy.ledger import Job
from midstep.policy.pool import Pool
from midstep.policy.ranked import Ranked


class Floor:
    """``victims``: all that run there, by rank; ``shrunk``: those with fewer devices than they asked for;
    ``on``: by the place of the node; ``touched``: places where devices became free; ``promised``: devices
    that guarantees stand on."""

    __slots__ = ("looked", "on", "pool", "promised", "promised_spot", "shrunk", "touched", "victims")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.victims: Ranked[Job] = Ranked()
        self.shrunk: Ranked[Job] = Ranked()
        self.on: dict[int, dict[Job, None]] = {}
        self.touched: set[int] = set()
        self.looked = -1  # the pool's version when it was last seen whether somebody could grow by moving
        self.promised = 0.0
        self.promised_spot = 0.0

    def put(self, job: Job) -> None:
        """Its spots are its own from now on."""
        if job.slot >= 0:
            self.pool.take_part(job.spots[0][0], job.slot, job.ask.milli)
        else:
            self.pool.take(job.spots)
        self.enter(job)

    def lift(self, job: Job) -> None:
        """Its spots are free."""
        self.leave(job)
        if job.slot >= 0:
            self.pool.give_back_part(job.spots[0][0], job.slot, job.ask.milli)
        else:
            self.pool.give_back(job.spots)
        self.touched.update(place for place, _ in job.spots)

    def enter(self, job: Job) -> None:
        """It is listed, whatever the pool says."""
        self.victims.add(job.rank, job)
        if job.sharing > 1:
            self.shrunk.add(job.rank, job)
        for place, _ in job.spots:
            self.on.setdefault(place, {})[job] = None

    def leave(self, job: Job) -> None:
        """It is listed no more."""
        self.victims.remove(job.rank, job)
        if job.sharing > 1:
            self.shrunk.remove(job.rank, job)
        for place, _ in job.spots:
            del self.on[place][job]

    def rerank(self, job: Job, rank: int) -> None:
        """It stands elsewhere now."""
        if rank != job.rank:
            self.victims.remove(job.rank, job)
            self.victims.add(rank, job)
            if job.sharing > 1:
                self.shrunk.remove(job.rank, job)
                self.shrunk.add(rank, job)
            job.rank = rank

    def at(self, job: Job, place: int) -> int:
        """Devices that it has there."""
        return sum(count for spot, count in job.spots if spot == place)

    def check(self) -> None:
        """AssertionError: devices given twice, or lists that disagree."""
        used: dict[int, int] = {}
        parts: dict[tuple[int, int], int] = {}
        for job in self.victims.up():
            assert job.floor is self and job.runs, job.ask.job_id
            if job.slot >= 0:
                key = (job.spots[0][0], job.slot)
                parts[key] = parts.get(key, 0) + job.ask.milli
                continue
            assert job.homes is None or job.devices == job.homes.devices(job.sharing), job.ask.job_id
            for place, count in job.spots:
                assert count > 0 and job in self.on[place], job.ask.job_id
                used[place] = used.get(place, 0) + count
        for place, _ in parts:
            used[place] = used.get(place, 0) + 1
        pool = self.pool
        for place, size in enumerate(pool.sizes):
            assert pool.left[place] == size - used.get(place, 0) >= 0, (pool.names[place], "given twice")
            open_bit = pool.by_free[pool.left[place]] >> place & 1 if size else 0
            assert bool(open_bit) != pool.closed[place] or not size, pool.names[place]
        free = sum(left for left, shut in zip(pool.left, pool.closed) if not shut)
        assert pool.free == free, (pool.free, free)
        assert {key: 1000 - milli for key, milli in pool.parts().items()} == parts
