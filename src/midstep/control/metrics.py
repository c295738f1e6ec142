"""From what nodes measure to what a scheduler needs to know. Pure: readings in, sums and rates out.

Time is the difference between two readings of the same proxy, so nothing depends on who began when: a new
epoch, a restored process or a controller that was away costs one reading. Bytes are all counted: a proxy
begins with its epoch, from nothing, and only a controller that was away does not know what it had heard. What
is kept over restarts is `Kept`; the readings themselves and the short history are not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from midstep.model.usage import NodeUsage, RankUsage
from midstep.wire.metrics import MemoryView, PointView, SharesView, SizeView

HISTORY = 120  # readings
RECENT_S = 15.0  # what "now" means
_HALF_S = 600.0  # of measured time at a size, after which what was before counts half


@dataclass(slots=True)
class Rate:
    """Steps and seconds at one number of devices; older ones fade."""

    steps: float = 0.0
    seconds: float = 0.0

    def add(self, steps: float, seconds: float) -> None:
        """A window of time in which so many steps were made."""
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        if self.seconds > 2 * _HALF_S:
            self.steps, self.seconds = self.steps / 2, self.seconds / 2


@dataclass(slots=True)
class Kept:
    """What of a job outlives the controller. Seconds and bytes are sums over all ranks."""

    epoch: int = 0
    at_s: float | None = None
    steps: int = 0
    counted: str = ""
    computing_s: float = 0.0
    reducing_s: float = 0.0
    waiting_s: float = 0.0
    queueing_s: float = 0.0
    reduced_bytes: int = 0
    memory: MemoryView = field(default_factory=MemoryView)
    rates: dict[int, Rate] = field(default_factory=dict[int, Rate])  # by devices


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two readings of the node that has the lowest rank, and of all its ranks."""

    at_s: float
    seconds: float
    steps: int
    computing_s: float
    reducing_s: float
    waiting_s: float
    queueing_s: float
    rank_s: float  # seconds of all its ranks together
    reduced_bytes: int


@dataclass(slots=True)
class Tally:
    """One job."""

    kept: Kept = field(default_factory=Kept)
    nodes: dict[str, NodeUsage] = field(
        default_factory=dict[str, NodeUsage]
    )  # the newest of each, this epoch
    windows: deque[Window] = field(default_factory=lambda: deque[Window](maxlen=HISTORY))
    devices: int = 0  # of this epoch
    _whole: bool = False  # this epoch is read from its beginning: what its proxies have counted is all new

    def take(self, node: str, usage: NodeUsage, devices: int, now_s: float) -> bool:
        """A node's reading. ``devices``: how many the job has under the reading's epoch, 0: not known. One of
        an epoch that is over is not taken."""
        kept = self.kept
        if usage.epoch < kept.epoch:
            return False
        if usage.epoch > kept.epoch or not self.nodes:
            self._whole = usage.epoch > kept.epoch
            kept.epoch, self.nodes, self.devices = usage.epoch, {}, 0
        self.devices = devices or self.devices
        before = self.nodes.get(node)
        self.nodes[node] = usage
        self._count()
        kept.at_s = now_s
        if any(_held_bytes(rank) for rank in usage.ranks):
            kept.memory = memory_of([rank for one in self.nodes.values() for rank in one.ranks])
        reduced_bytes = reduced_since(before, usage)
        if before is not None or self._whole:
            kept.reduced_bytes += reduced_bytes
        if before is not None and not before.last and before.source == usage.source:
            window = window_of(before, usage, kept.counted, now_s, reduced_bytes)
            if window is not None:
                self._add(window, node)
        return True

    def _count(self) -> None:
        """How many steps the job has made."""
        steps = max((rank.steps for one in self.nodes.values() for rank in one.ranks), default=0)
        if steps:
            counted = "optimizer"
        elif self.kept.counted == "optimizer":
            return  # the readings of a new epoch have only begun
        else:
            steps = max((one.beats for one in self.nodes.values()), default=0)
            counted = "collectives" if steps else ""
        if self.kept.counted and counted != self.kept.counted:
            self.kept.rates.clear()  # of another unit
        self.kept.steps, self.kept.counted = steps, counted

    def _add(self, window: Window, node: str) -> None:
        kept = self.kept
        kept.computing_s += window.computing_s
        kept.reducing_s += window.reducing_s
        kept.waiting_s += window.waiting_s
        kept.queueing_s += window.queueing_s
        if node != min(self.nodes, key=lambda name: (_lowest(self.nodes[name]), name)):
            return  # another node speaks for the job
        self.windows.append(window)
        if self.devices and kept.steps > window.steps:  # before the first step a job only prepares itself
            kept.rates.setdefault(self.devices, Rate()).add(window.steps, window.seconds)

    def recent(self, now_s: float) -> Window | None:
        """The last seconds as one window; None while nothing is measured."""
        last = [window for window in self.windows if now_s - window.at_s < RECENT_S]
        if not last or all(usage.last for usage in self.nodes.values()):
            return None
        return Window(
            last[-1].at_s,
            sum(w.seconds for w in last),
            sum(w.steps for w in last),
            sum(w.computing_s for w in last),
            sum(w.reducing_s for w in last),
            sum(w.waiting_s for w in last),
            sum(w.queueing_s for w in last),
            sum(w.rank_s for w in last),
            sum(w.reduced_bytes for w in last),
        )


def window_of(
    before: NodeUsage, after: NodeUsage, counted: str, now_s: float, reduced_bytes: int
) -> Window | None:
    """What happened between two readings of one source, so many bytes among it; None: no time has passed."""
    seconds = after.at_s - before.at_s
    if seconds <= 0:
        return None
    computing_s = reducing_s = waiting_s = queueing_s = rank_s = 0.0
    known = {rank.rank: rank for rank in before.ranks}
    for rank in after.ranks:
        if rank.rank not in known:
            continue
        was = known[rank.rank]
        busy_s = _within(rank.computing_s - was.computing_s, seconds)
        idle_s = seconds - busy_s
        combining_s = _within(rank.reducing_s - was.reducing_s, idle_s)
        computing_s += busy_s
        reducing_s += combining_s
        waiting_s += idle_s - combining_s
        queueing_s += _within(rank.queueing_s - was.queueing_s, idle_s - combining_s)
        rank_s += seconds
    steps = max(0, _steps(after, counted) - _steps(before, counted))
    return Window(
        now_s, seconds, steps, computing_s, reducing_s, waiting_s, queueing_s, rank_s, reduced_bytes
    )


def reduced_since(before: NodeUsage | None, after: NodeUsage) -> int:
    """Bytes given to reductions between two readings; another source has counted from nothing."""
    same = before is not None and before.source == after.source
    known = {rank.rank: rank.reduced_bytes for rank in before.ranks} if before and same else {}
    return sum(max(0, rank.reduced_bytes - known.get(rank.rank, 0)) for rank in after.ranks)


def sizes_of(rates: dict[int, Rate]) -> tuple[SizeView, ...]:
    """Each number of devices beside the best one, fewest first."""
    speeds = {
        n: rate.steps / rate.seconds for n, rate in rates.items() if rate.steps > 0 and rate.seconds > 0
    }
    best = max((speed / devices for devices, speed in speeds.items()), default=0.0)
    return tuple(
        SizeView(devices, speed, speed / devices / best, rates[devices].seconds)
        for devices, speed in sorted(speeds.items())
    )


def shares_of(window: Window) -> SharesView:
    """What the ranks did with their time."""
    if window.rank_s <= 0:
        return SharesView()
    parts = (window.computing_s, window.reducing_s, window.waiting_s, window.queueing_s)
    return SharesView(*(part / window.rank_s for part in parts))


def points_of(tally: Tally) -> tuple[PointView, ...]:
    """The short history, oldest first."""
    return tuple(PointView(w.at_s, w.steps / w.seconds, shares_of(w)) for w in tally.windows)


def memory_of(ranks: list[RankUsage]) -> MemoryView:
    """Of the rank that has most, by kind."""
    if not ranks:
        return MemoryView()
    return MemoryView(
        parameters=max(rank.parameters_bytes for rank in ranks),
        optimizer=max(rank.optimizer_bytes for rank in ranks),
        gradients=max(rank.gradients_bytes for rank in ranks),
        other=max(max(0, _held_bytes(rank) - _known_bytes(rank)) for rank in ranks),
        shared=max(rank.shared_bytes for rank in ranks),
        device_peak=max(rank.device_bytes for rank in ranks),
        resident=sum(rank.resident_bytes for rank in ranks),
    )


def _held_bytes(rank: RankUsage) -> int:
    """Where its tensors are: on GPUs if it has any there."""
    return rank.device_bytes or rank.resident_bytes


def _known_bytes(rank: RankUsage) -> int:
    return rank.parameters_bytes + rank.optimizer_bytes + rank.gradients_bytes


def _steps(usage: NodeUsage, counted: str) -> int:
    if counted == "optimizer":
        return max((rank.steps for rank in usage.ranks), default=0)
    return usage.beats


def _lowest(usage: NodeUsage) -> int:
    return min((rank.rank for rank in usage.ranks), default=1 << 30)


def _within(seconds: float, most_s: float) -> float:
    return min(max(0.0, seconds), most_s)
