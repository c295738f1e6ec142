"""Where content is cut: at boundaries of whole pages that the content itself chooses.

Memory moves by whole pages, so pages are what is looked at, never single bytes: each gets a digest of its own
content, and a chunk ends after the first page, `MIN_PAGES` on, whose digest is rare enough; where none is,
after the one with the largest digest up to `MAX_PAGES`. A decision looks at nothing but the pages since the
last boundary, so two streams that share pages have the same chunks again soon after one common boundary,
wherever the pages lie. Runs of zero pages are chunks of their own, of any length, and cost nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.vault.backends.base import Buffer

PAGE = 4096
MIN_PAGES, MAX_PAGES = 8, 64
ZERO_PAGES = 8  # a run of so many is not data; a shorter one is compressed with what is around it
CARRY_PAGES = MAX_PAGES + ZERO_PAGES  # what a cutter may still hold, undecided
_RARE = 16  # one page in so many may end a chunk: 24 pages, 96 KiB, on average
_THRESHOLD = np.uint64(2**64 - 2**64 // _RARE)
_MIX, _STIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Cut:
    """Pages `start` to `end` of a stream are a chunk, or zeros."""

    start: int
    end: int
    zero: bool = False


def page_digests(data: Buffer) -> Digests:
    """One for each page, the last filled up with zeros; 0 for a page of zeros and for no other."""
    whole = len(data) // PAGE
    pages = np.frombuffer(data, np.uint64, whole * PAGE // 8).reshape(whole, PAGE // 8)
    if tail := len(data) - whole * PAGE:
        last = np.zeros(PAGE, np.uint8)
        last[:tail] = np.frombuffer(data, np.uint8, tail, whole * PAGE)
        return np.concatenate((_digests(pages), _digests(last.view(np.uint64).reshape(1, -1))))
    return _digests(pages)


def _digests(pages: NDArray[np.uint64]) -> Digests:
    # A sum is enough, and runs at the speed of memory: equal pages decide equally, and that is all it is for.
    sums = pages.sum(axis=1, dtype=np.uint64)
    mixed = sums * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _STIR
    mixed ^= mixed >> np.uint64(32)
    mixed |= np.uint64(1)
    suspects = np.flatnonzero(sums == 0)
    if len(suspects):
        mixed[suspects[~pages[suspects].any(axis=1)]] = 0
    return mixed


class Cutter:
    """Takes a stream's pages in pieces of any size, and gives the cuts that are certain so far. How the
    stream is divided makes no difference."""

    def __init__(self) -> None:
        self.start = 0  # the first page that is not in a cut yet; at most CARRY_PAGES are not
        self._held: Digests = np.empty(0, np.uint64)
        self._in_zeros = False  # the last cut is of zeros: those that follow at once belong to it

    def feed(self, digests: Digests) -> list[Cut]:
        """The next pages."""
        pages = np.concatenate((self._held, digests)) if len(self._held) else digests
        return self._take(pages, last=False)

    def zeros(self, pages: int) -> list[Cut]:
        """A hole: at least ZERO_PAGES pages of zeros that nobody has to look at."""
        pending = np.trim_zeros(self._held, "b")
        run = len(self._held) - len(pending) + pages
        cuts = self._take(pending, last=True) if len(pending) else []
        cuts.append(Cut(self.start, self.start + run, zero=True))
        self.start, self._in_zeros = self.start + run, True
        self._held = self._held[:0]
        return cuts

    def finish(self) -> list[Cut]:
        """The stream ends here."""
        return self._take(self._held, last=True)

    def _take(self, pages: Digests, *, last: bool) -> list[Cut]:
        origin, at = self.start, 0
        cuts: list[Cut] = []
        for begin, end in self._zero_runs(pages):
            cuts += (Cut(origin + a, origin + b) for a, b in _cut(pages, at, begin, closed=True))
            cuts.append(Cut(origin + begin, origin + end, zero=True))
            at = end
        certain = len(pages) if last else _without_zeros(pages, at)
        for a, b in _cut(pages, at, certain, closed=last):
            cuts.append(Cut(origin + a, origin + b))
            at = b
        if cuts:
            self._in_zeros = cuts[-1].zero
        self.start, self._held = origin + at, pages[at:].copy()
        return cuts

    def _zero_runs(self, pages: Digests) -> Iterator[tuple[int, int]]:
        """Runs that are long enough, or go on from the last cut."""
        zero = pages == 0
        if not zero.any():
            return
        edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
            if end - begin >= ZERO_PAGES or (begin == 0 and self._in_zeros):
                yield begin, end


def _without_zeros(pages: Digests, at: int) -> int:
    """The end of what is certainly data: zeros at the end may turn out to begin a long run."""
    end = len(pages)
    while end > at and pages[end - 1] == 0:
        end -= 1
    return end


def _cut(pages: Digests, start: int, stop: int, *, closed: bool) -> Iterator[tuple[int, int]]:
    """Chunks of pages[start:stop], which hold no long run of zeros. `closed`: nothing follows, so the rest is
    a chunk, however small."""
    ends: list[int] = np.flatnonzero(pages[start:stop] >= _THRESHOLD).tolist()
    base, at = start, 0
    while start < stop:
        first, last = start + MIN_PAGES - 1, start + MAX_PAGES - 1
        at = bisect_left(ends, first - base, at)
        if at < len(ends) and ends[at] + base <= last:
            end = ends[at] + base + 1
        elif last < stop:
            window = pages[first : last + 1]
            end = last + 1 - int(np.argmax(window[::-1]))
        elif closed:
            end = stop
        else:
            return
        yield start, end
        start = end
