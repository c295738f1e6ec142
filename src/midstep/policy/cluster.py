"""The lowest level: which nodes of a cluster a job gets, and from whom.

At each moment: jobs whose rank has changed are ranked anew; those that are owed a guarantee get it; then the
waiting ones, by rank, from what is free or from those that rank behind them; last, jobs that run on fewer
devices than they asked for grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush

from midstep.policy.asks import MILLI, Grant, NodeShape, Settings
from midstep.policy.causes import Behind, Drained, NoneSuch, NotTogether, OverLimit
from midstep.policy.causes import Waiting as Reason
from midstep.policy.floor import Floor
from midstep.policy.growing import Growing
from midstep.policy.hand import Hand, Judge
from midstep.policy.homes import Homes
from midstep.policy.ledger import NEVER, Job
from midstep.policy.order import BAND, SPARE
from midstep.policy.placing import Placing, steps_on
from midstep.policy.pool import Pool, Spots
from midstep.policy.projects.quota import Projects
from midstep.policy.ranked import Ranked
from midstep.policy.waiting import Class, Waiting, fits_whole, fitting, shape_on


class Cluster:
    """``owed``: jobs with a guarantee that have no devices. ``refuge``: another cluster would take one over
    with all of its devices."""

    def __init__(
        self, region: str, name: str, judge: Judge, hand: Hand, projects: Projects, settings: Settings
    ) -> None:
        self.region, self.name = region, name
        self._projects = projects
        self.owed_devices = 0.0
        self.busy = False  # somebody who waits could have something of what is free, in a second
        self.phase_s = 0.0  # clusters do not all look up at the same moment
        self.floors: dict[str, Floor] = {}
        self.waiting = Waiting()
        self.owed: Ranked[Job] = Ranked()
        self.refuge: Callable[[Job, float], bool] = lambda job, now_s: False
        self._judge, self._hand, self._settings = judge, hand, settings
        self._reviews: list[tuple[float, str, Job]] = []
        self._draining: dict[tuple[str, int], None] = {}
        self._placing = Placing(self, hand, projects, settings)
        self._growing = Growing(self, hand, projects, settings)

    # What happens.

    def join(self, shape: NodeShape) -> Floor:
        """A node."""
        floor = self.floors.get(shape.device_type)
        if floor is None:
            floor = Floor(Pool(self.region, self.name, shape.device_type))
            self.floors[shape.device_type] = floor
        floor.pool.join(shape)
        self.waiting.refit(self.floors.values())
        return floor

    def refit(self) -> None:
        """Nodes left."""
        self.waiting.refit(self.floors.values())

    def add(self, job: Job, now_s: float) -> None:
        """A job that waits."""
        job.rank, job.review_s = self._judge(job, now_s)
        if job.tier.guarantee:
            self.owed.add(job.rank, job)
            self.owed_devices += job.size
        else:
            self.waiting.add(job, self._projects.limiter(job.ask.project), self.floors.values())

    def remove(self, job: Job) -> None:
        """A job that waits or runs here is no more."""
        if job.runs:
            assert job.floor is not None
            job.floor.lift(job)
        elif job.tier.guarantee:
            self.owed.remove(job.rank, job)
            self.owed_devices -= job.size
        else:
            self.waiting.remove(job)

    def rerank(self, job: Job, now_s: float) -> None:
        """Something about it has changed."""
        if job.floor is None:
            if self._judge(job, now_s)[0] != job.rank:
                self.remove(job)
                self.add(job, now_s)
            return
        rank, review_s = self._judge(job, now_s)
        if rank != job.rank or job.review_s <= now_s or review_s < job.review_s - 1:
            job.floor.rerank(job, rank)
            job.review_s = review_s
            self.watch(job)

    def rank_anew(self, now_s: float) -> None:
        """All of them."""
        for job in list(self.jobs()):
            self.rerank(job, now_s)

    def adopt(self, job: Job, floor: Floor, spots: Spots, grant: Grant, now_s: float) -> None:
        """A waiting job has devices already, whoever gave them: whoever has them by the books gives way."""
        for place, count in spots:
            for other in list(floor.on.get(place, ())):
                if not floor.pool.has(place, count, grant.slot, job.ask.milli):
                    floor.lift(other)
                    self._hand.suspend(other, Drained(floor.pool.names[place]), now_s)
                    self.add(other, now_s)
        self.remove(job)
        job.homes = job.homes or (shape_on(job, floor) if job.ask.milli == MILLI else None)
        sharing = -(-job.ask.devices // max(1, grant.devices))
        if job.homes is not None and job.homes.devices(sharing) != grant.devices:
            job.homes = Homes(job.ask.devices, 1, 1)
        self._hand.take_over(job, floor, sharing, spots, grant.slot, now_s)
        self.watch(job)

    def keep(self, floor: Floor, place: int) -> None:
        """A node is emptied no more."""
        self._draining.pop((floor.pool.device_type, place), None)

    def could(self, job: Job) -> bool:
        """A job of another cluster could run here."""
        return bool(fitting(job, self.floors.values()))

    def firmest(self, job: Job) -> Floor:
        """Where the most is left for a guarantee, of those where it could run."""
        floors = [floor for floor in self.floors.values() if fits_whole(job, floor)]
        floors = floors or fitting(job, self.floors.values()) or list(self.floors.values())
        return max(floors, key=lambda floor: floor.pool.size - floor.promised)

    def why(self, job: Job) -> Reason:
        """What a job waits for."""
        floors = fitting(job, self.floors.values())
        over = self._projects.over_limit(job.ask.project, job.ask.least)
        if over is not None:
            return OverLimit(*over)
        if not floors:
            most = max((floor.pool.size for floor in self.floors.values()), default=0)
            return NoneSuch(job.ask.devices, most, job.ask.device_types)
        free = max(floor.pool.free for floor in floors)
        if free >= job.ask.devices and job.ask.least >= job.ask.devices:
            largest = max((n for f in floors for n, bits in enumerate(f.pool.by_free) if bits), default=0)
            return NotTogether(min(f.pool.largest for f in floors), largest)
        ahead = sum(1 for other in self.jobs() if not other.runs and other.rank < job.rank)
        return Behind(job.ask.devices, free, ahead)

    def drain(self, floor: Floor, place: int) -> None:
        """Empty a node, which is closed."""
        self._draining[floor.pool.device_type, place] = None

    # What to do.

    def decide(self, now_s: float) -> float:
        """Do what is to be done now; when to look again at the latest."""
        self._hand.settles_s = NEVER
        self._review(now_s)
        again = self._empty_nodes(now_s)
        self._serve_owed(now_s)
        more = self.busy = self._serve_waiting(now_s)
        self._growing.again = False
        self._growing.grow(self.floors.values(), self.tick(now_s), now_s)
        return now_s + 1 if again or more or self._growing.again else self._wake(now_s)

    def _review(self, now_s: float) -> None:
        reviews = self._reviews
        while reviews and reviews[0][0] <= now_s:
            at_s, _, job = heappop(reviews)
            if job.review_s == at_s and job.floor is not None:
                self.rerank(job, now_s)

    def watch(self, job: Job) -> None:
        """Its rank is to be looked at again at ``review_s``."""
        if job.review_s < NEVER:
            heappush(self._reviews, (job.review_s, job.ask.job_id, job))

    def _wake(self, now_s: float) -> float:
        """Ranks change slowly, so whoever waits looks at them once a tick."""
        floors = self.floors.values()
        if not (self.waiting.count or self.owed or any(floor.shrunk for floor in floors)):
            return NEVER
        tick_s = self._settings.tick_s
        at_s = self._hand.settles_s
        if self._reviews:
            at_s = min(at_s, max(self._reviews[0][0], now_s + 1))
        room = any(f.pool.free and f.shrunk and f.looked != f.pool.version for f in floors)
        lowest = (floor.shrunk.lowest for floor in floors)
        short = any(rank is not None and rank < SPARE * BAND for rank in lowest)
        if self.owed or room or short:
            at_s = min(at_s, now_s + 1)
        return -(-(at_s - self.phase_s) // tick_s) * tick_s + self.phase_s if at_s < NEVER else NEVER

    def tick(self, now_s: float) -> int:
        """The number of the present one."""
        return int((now_s - self.phase_s) // self._settings.tick_s)

    # Guarantees.

    def _serve_owed(self, now_s: float) -> None:
        for job in list(self.owed.up()):
            floors = sorted(self._fitting(job), key=lambda floor: floor is not job.promised)
            self._placing.owed(job, floors, now_s)

    # What is spare.

    def _serve_waiting(self, now_s: float) -> bool:
        """Whether there is more to do at once."""
        tick = self.tick(now_s)
        tried: set[int] = set()
        for _ in range(self._settings.per_event):
            chosen = self._next_class(tried, tick)
            if chosen is None:
                return False
            job = chosen.jobs.first()
            assert job is not None
            if not self._placing.spare(job, chosen.floors, now_s):
                tried.add(id(chosen))
                chosen.stamp, chosen.tick = chosen.now(), tick
        return True

    def _next_class(self, tried: set[int], tick: int) -> Class | None:
        best: Class | None = None
        best_rank = 0
        for known in self.waiting.classes():
            rank = known.jobs.lowest
            assert rank is not None
            if (best is not None and rank >= best_rank) or id(known) in tried:
                continue
            if known.tick == tick and known.stamp == known.now():
                continue
            if any(self._hopeful(floor, rank) for floor in known.floors) or not known.kind[1]:
                best, best_rank = known, rank
        return best

    def _hopeful(self, floor: Floor, rank: int) -> bool:
        highest = floor.victims.highest
        behind = highest is not None and highest >= rank + self._settings.gap
        return floor.pool.free > 0 or behind or floor.pool.shared > 0

    # Drains.

    def _empty_nodes(self, now_s: float) -> bool:
        for kind, place in list(self._draining):
            floor = self.floors[kind]
            for job in list(floor.on.get(place, ())):
                self._leave(job, floor, place, now_s)
            if not floor.on.get(place):
                del self._draining[kind, place]
        return False

    def _leave(self, job: Job, floor: Floor, place: int, now_s: float) -> None:
        cause = Drained(floor.pool.names[place])
        floor.lift(job)
        if job.slot >= 0:
            found = floor.pool.find_part(job.ask.milli)
            if found is not None:
                self._hand.resize(job, floor, 1, [(found[0], 1)], cause, now_s, found[1])
                self.watch(job)
                return
        elif job.homes is not None:
            for sharing in steps_on(job, floor):
                spots = floor.pool.find(job.homes, sharing, near=job.spots)
                if spots is not None and sharing >= job.sharing:
                    self._hand.resize(job, floor, sharing, spots, cause, now_s)
                    self.watch(job)
                    return
        self._hand.suspend(job, cause, now_s)
        self.add(job, now_s)

    # Small things.

    def _fitting(self, job: Job) -> list[Floor]:
        types = job.ask.device_types
        return [floor for kind, floor in self.floors.items() if not types or kind in types]

    def jobs(self) -> Iterator[Job]:
        """All of them."""
        for floor in self.floors.values():
            yield from floor.victims.up()
        yield from self.owed.up()
        for known in self.waiting.classes():
            yield from known.jobs.up()
