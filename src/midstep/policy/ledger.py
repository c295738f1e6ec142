"""A job as the scheduler knows it: what it asked for, what it has, what it has had."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from midstep.model.tiers import Tier
from midstep.policy.asks import MILLI, Ask
from midstep.policy.causes import Cause, Waiting
from midstep.policy.homes import Homes
from midstep.policy.pool import Spots

if TYPE_CHECKING:
    from midstep.policy.floor import Floor

HOUR_S = 3600.0
NEVER = float("inf")


class Job:
    """``had_s``: useful seconds so far, up to ``since_s``: time at which it had all the devices that it asked
    for, and parts of it in part. ``sharing``: ranks a device. ``rank``: where it stands, low goes first;
    ``review_s``: when that is to be looked at again. ``sent_s``: when another cluster last
    took it over. ``slot``: the shared device, where it has a part. ``borrowed``: 1: beyond what its project
    is due, 2: beyond its fair share, too."""

    __slots__ = (
        "again", "ask", "borrowed", "cause", "efficiency", "floor", "had_s", "homes", "kind", "moved_s",
        "promised", "queued_s", "rank", "rate", "recent", "review_s", "sent_s", "sharing", "since_s", "size",
        "slot", "snapshot_bytes", "spots", "submit_s", "tier", "wait",
    )  # fmt: skip

    def __init__(self, ask: Ask, tier: Tier, now_s: float) -> None:
        self.ask, self.tier = ask, tier
        self.size = ask.devices * ask.milli / MILLI
        self.submit_s = self.queued_s = self.since_s = now_s
        self.moved_s = self.sent_s = -NEVER
        self.had_s = self.rate = 0.0
        self.homes: Homes | None = None
        self.floor: Floor | None = None
        self.spots: Spots = []
        self.slot = -1
        self.sharing = 0
        self.rank = 0
        self.review_s = NEVER
        self.again = False
        self.borrowed = 0
        self.promised: Floor | None = None  # where its guarantee stands
        self.kind: Hashable = None  # of the class that it waits in
        self.cause: Cause | None = None
        self.wait: Waiting | None = None
        self.efficiency: Mapping[int, float] = {}
        self.snapshot_bytes = ask.snapshot_bytes
        self.recent: deque[tuple[float, float, float]] = deque()  # stretches that are over: from, until, rate

    @property
    def runs(self) -> bool:
        """It has devices."""
        return self.sharing > 0

    @property
    def devices(self) -> int:
        """That it has now."""
        return sum(count for _, count in self.spots)

    @property
    def whole(self) -> bool:
        """It has all that it asked for."""
        return self.sharing == 1

    def useful_s(self, now_s: float) -> float:
        """Useful seconds since it was submitted."""
        return self.had_s + max(0.0, now_s - self.since_s) * self.rate if self.runs else self.had_s

    def work(self, now_s: float) -> float:
        """Useful device seconds."""
        return self.useful_s(now_s) * self.size

    def expected_rate(self, sharing: int, splice: float) -> float:
        """Progress per second with so many ranks a device, 1 is with one each."""
        if sharing <= 1:
            return 1.0
        return self.efficiency.get(sharing, 1.0 / splice) / sharing

    def settle(self, now_s: float, lost_s: float = 0.0) -> None:
        """The present stretch is over; ``lost_s`` of it were spent on stopping."""
        if self.runs and now_s > self.since_s:
            self.had_s += max(0.0, now_s - self.since_s - lost_s) * self.rate
            if self.tier.guarantee:
                self.recent.append((self.since_s, max(self.since_s, now_s - lost_s), self.rate))
                while self.recent and self.recent[0][1] < now_s - HOUR_S:
                    self.recent.popleft()
        self.since_s = now_s

    def fraction(self, now_s: float, window_s: float = HOUR_S) -> float:
        """Useful time over time, within the last ``window_s`` or since it was submitted."""
        begin = max(self.submit_s, now_s - window_s)
        if now_s <= begin:
            return 1.0
        had_s = sum((until - max(begin, start)) * rate for start, until, rate in self.recent if until > begin)
        if self.runs and now_s > self.since_s:
            had_s += (now_s - max(begin, self.since_s)) * self.rate
        return had_s / (now_s - begin)

    def can_lack(self, lost_s: float, now_s: float) -> bool:
        """Its guarantee would be kept if it made no progress for so long now, and then ended: over its life,
        and over the hour."""
        lived_s = now_s - self.submit_s
        of_life = (1.0 - self.tier.guarantee) * (lived_s + lost_s) - (lived_s - self.useful_s(now_s))
        of_hour = (1.0 - self.tier.guarantee) * HOUR_S - (1.0 - self.fraction(now_s)) * min(lived_s, HOUR_S)
        return lost_s <= of_life + 1e-9 and lost_s <= of_hour + 1e-9


def device_of(job: Job) -> tuple[int, int]:
    """The shared device that it has a part of: the place of its node, and which one there."""
    return job.spots[0][0], job.slot
