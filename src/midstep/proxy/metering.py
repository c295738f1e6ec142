"""What the ranks of this node do with their devices: counted by them and by the engine, and by the kernel.

``seen`` is called in the engine's thread and only copies numbers; /proc is read by whoever asked, beside it.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from midstep.mailbox.meter import Meter, Word
from midstep.model.usage import NodeUsage, RankUsage
from midstep.proxy.config import ProxyConfig
from midstep.proxy.engine import Engine

_ASK_S = 8.0  # between two questions to a rank for its memory: it answers within a step, with little work
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engine knows, at one instant."""

    at_s: float
    beats: int
    ranks: dict[int, tuple[int, float, float, int]]  # owner, reducing_s, queueing_s, reduced_bytes


@dataclass(frozen=True, slots=True)
class Readings:
    """All ranks of this node, at one instant."""

    at_s: float
    beats: int
    ranks: tuple[RankUsage, ...]


def seen(engine: Engine) -> Seen:
    """In the engine's thread."""
    ranks: dict[int, tuple[int, float, float, int]] = {}
    queueing = {counters.rank: counters.queueing_s for counters in engine.seats.counters()}
    for box in engine.boxes:
        owner, reducing_s, _, reduced = ranks.get(box.tree, (box.owner, 0.0, 0.0, 0))
        sums = (reducing_s + box.carried_s, queueing.get(box.tree, 0.0), reduced + box.reduced_bytes)
        ranks[box.tree] = (owner, *sums)
    for rank, (carried_s, reduced_bytes) in engine.past.items():  # of mailboxes that are gone
        owner, reducing_s, queueing_s, reduced = ranks.get(rank, (0, 0.0, 0.0, 0))
        ranks[rank] = (owner, reducing_s + carried_s, queueing_s, reduced + reduced_bytes)
    return Seen(time.monotonic(), engine.counters.rhythm.beats, ranks)


class Meters:
    """The pages in which the ranks' processes count. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[int, list[tuple[int, Meter]]] = {}  # rank -> process, page
        self._steps: dict[int, int] = {}  # rank -> of processes that have ended
        self._asked_s = -_ASK_S

    def found(self, rank: int, pid: int, page: Meter) -> None:
        """A process of a rank counts here."""
        with self._lock:
            self._pages.setdefault(rank, []).append((pid, page))

    def read(self, seen_here: Seen) -> Readings:
        """What each rank has done; asks for news of their memory, now and then."""
        with self._lock:
            asks = seen_here.at_s - self._asked_s >= _ASK_S
            if asks:
                self._asked_s = seen_here.at_s
            ranks = sorted({*seen_here.ranks, *self._pages, *self._steps})
            found = tuple(
                self._rank(rank, seen_here.ranks.get(rank, (0, 0.0, 0.0, 0)), asks) for rank in ranks
            )
        return Readings(seen_here.at_s, seen_here.beats, found)

    def _rank(self, rank: int, sums: tuple[int, float, float, int], asks: bool) -> RankUsage:
        owner, reducing_s, queueing_s, reduced_bytes = sums
        pages = self._living(rank)
        done = self._steps.get(rank, 0)
        page = max(pages, key=lambda one: one[1].words[Word.STEPS], default=None)
        if page is None:
            return RankUsage(
                rank, done, _computed_s(owner), reducing_s, queueing_s, reduced_bytes,
                resident_bytes=_resident_bytes(owner),
            )  # fmt: skip
        pid, words = page[0], page[1].words
        if asks and words[Word.ASKED] == words[Word.TOLD]:
            words[Word.ASKED] += 1
        return RankUsage(
            rank,
            max(done, words[Word.STEPS]),
            _computed_s(pid),
            reducing_s,
            queueing_s,
            reduced_bytes,
            words[Word.PARAMETERS],
            words[Word.OPTIMIZER],
            words[Word.GRADIENTS],
            words[Word.SHARED],
            words[Word.DEVICE_PEAK],
            _resident_bytes(pid),
        )

    def _living(self, rank: int) -> list[tuple[int, Meter]]:
        """The pages of a rank's processes; of those that have ended only the steps are kept."""
        living: list[tuple[int, Meter]] = []
        for pid, page in self._pages.get(rank, []):
            if os.path.exists(f"/proc/{pid}"):
                living.append((pid, page))
            else:
                self._steps[rank] = max(self._steps.get(rank, 0), page.words[Word.STEPS])
                page.close()
        if rank in self._pages:
            self._pages[rank] = living
        return living


def to_lines(readings: Readings, last: bool) -> dict[str, Any]:
    """For the control connection."""
    return {**asdict(readings), "last": last}


def usage_from(data: dict[str, Any], config: ProxyConfig, source: int) -> NodeUsage:
    """The inverse, with whose readings they are."""
    ranks = tuple(RankUsage(**rank) for rank in data["ranks"])
    return NodeUsage(config.job_id, config.epoch, source, data["at_s"], ranks, data["beats"], data["last"])


def _computed_s(pid: int) -> float:
    """What the main thread of a process has computed; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    try:  # a kernel without statistics of its scheduler
        with open(f"/proc/{pid}/task/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    except (OSError, ValueError, IndexError):
        return 0.0


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
