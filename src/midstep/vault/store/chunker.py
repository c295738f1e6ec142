"""Where content is cut: at boundaries of lines of 64 bytes that the content itself chooses.

Tensors begin at multiples of 64 bytes, in a process's heap anywhere else within a page than in the heap of
its neighbour: so lines are what is looked at, never pages and never single bytes. Each line gets a digest of
its own content, and a chunk ends after the first line, `MIN_LINES` on, whose digest is rare enough; where
none is, after the one with the largest digest up to `MAX_LINES`. A decision looks at nothing but the lines
since the last boundary, so two streams that share memory have the same chunks again soon after one common
boundary, wherever it lies. Runs of zero pages are chunks of their own, of any length, and cost nothing.

Heaps of small objects change a few bytes here and there, tensors all or nothing: so what looks like a heap
(many zero bytes) is cut finer (`pieces`), at boundaries found in the same way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midstep.vault.backends.base import Buffer

LINE, PAGE = 64, 4096
PAGE_LINES = PAGE // LINE
MIN_LINES, MAX_LINES = 8 * PAGE_LINES, 64 * PAGE_LINES
ZERO_LINES = (
    8 * PAGE_LINES
)  # a run of so many is not data; a shorter one is compressed with what is around it
CARRY_LINES = MAX_LINES + ZERO_LINES  # what a cutter may still hold, undecided
_RARE = 16 * PAGE_LINES  # one line in so many may end a chunk: 96 KiB on average
_THRESHOLD = np.uint64(2**64 - 2**64 // _RARE)
_FINE_LEAST, _FINE_MOST, _FINE_RARE = PAGE_LINES, 16 * PAGE_LINES, 4 * PAGE_LINES  # 20 KiB on average
_FINE_THRESHOLD = np.uint64(2**64 - 2**64 // _FINE_RARE)
_SAMPLE, _HEAP_ZEROS = 389, 0.15  # one byte in so many is looked at; of a heap's more than this share are 0
_MIX, _STIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines `start` to `end` of a stream are a chunk, or zeros."""

    start: int
    end: int
    zero: bool = False


def line_digests(data: Buffer) -> Digests:
    """One for each line, the last filled up with zeros; 0 for the lines of a page of zeros (pages are counted
    from the beginning of the data) and for no other."""
    whole = len(data) // PAGE
    lines = np.frombuffer(data, np.uint64, whole * PAGE // 8).reshape(-1, LINE // 8)
    if not (tail := len(data) - whole * PAGE):
        return _digests(lines)
    last = np.zeros(PAGE, np.uint8)
    last[:tail] = np.frombuffer(data, np.uint8, tail, whole * PAGE)
    rest = _digests(last.view(np.uint64).reshape(-1, LINE // 8))
    return np.concatenate((_digests(lines), rest[: -(-tail // LINE)]))


def fine_ends(digests: Digests) -> list[int]:
    """The lines that a piece of a heap may end with."""
    return np.flatnonzero(digests >= _FINE_THRESHOLD).tolist()


def pieces(chunk: memoryview, ends: list[int], first: int = 0) -> list[memoryview]:
    """What a chunk is stored as: in one piece, or in smaller ones if it looks like a heap. `ends`: fine ones
    of the lines around, `first`: which of them is the chunk's first."""
    if len(chunk) <= _FINE_LEAST * LINE or not _is_heap(chunk):
        return [chunk]
    lines = len(chunk) // LINE
    found: list[memoryview] = []
    start = at = 0
    while start < lines:
        at = bisect_left(ends, first + start + _FINE_LEAST - 1, at)
        end = ends[at] + 1 - first if at < len(ends) else lines
        end = min(end, start + _FINE_MOST)
        if lines - end < _FINE_LEAST:
            end = lines
        found.append(chunk[start * LINE : end * LINE if end < lines else len(chunk)])
        start = end
    return found


def _is_heap(chunk: memoryview) -> bool:
    sample = np.frombuffer(chunk, np.uint8)[::_SAMPLE].tobytes()
    return sample.count(0) > _HEAP_ZEROS * len(sample)


def _digests(lines: NDArray[np.uint64]) -> Digests:
    mixed = _mixed(lines)
    pages = mixed.reshape(-1, PAGE_LINES)
    likely = np.flatnonzero(pages[:, 0] == 1)
    for page in likely[(pages[likely] == 1).all(axis=1)].tolist():
        if not lines[page * PAGE_LINES : (page + 1) * PAGE_LINES].any():
            pages[page] = 0
    return mixed


def _mixed(lines: NDArray[np.uint64]) -> Digests:
    # Two of the eight words are enough, and run at the speed of memory: equal lines decide equally, and that
    # is all it is for.
    # A few long operations: between them, threads take turns.
    mixed = np.multiply(lines[:, 2], _MIX)
    mixed ^= lines[:, 5]
    mixed *= _STIR  # its upper bits, which decide, depend on all of both words
    mixed |= np.uint64(1)
    return mixed


class Cutter:
    """Takes a stream's lines in pieces of any size, and gives the cuts that are certain so far. How the
    stream is divided makes no difference."""

    def __init__(self) -> None:
        self.start = 0  # the first line that is not in a cut yet; at most CARRY_LINES are not
        self.fine: list[int] = []  # fine ends, counted from the first line of the last cuts
        self._held: Digests = np.empty(0, np.uint64)
        self._in_zeros = False  # the last cut is of zeros: those that follow at once belong to it

    def feed(self, digests: Digests) -> list[Cut]:
        """The next lines."""
        lines = np.concatenate((self._held, digests)) if len(self._held) else digests
        return self._take(lines, last=False)

    def zeros(self, lines: int) -> list[Cut]:
        """A hole: at least ZERO_LINES lines of zeros that nobody has to look at."""
        pending = np.trim_zeros(self._held, "b")
        run = len(self._held) - len(pending) + lines
        self.fine = []
        cuts = self._take(pending, last=True) if len(pending) else []
        cuts.append(Cut(self.start, self.start + run, zero=True))
        self.start, self._in_zeros = self.start + run, True
        self._held = self._held[:0]
        return cuts

    def finish(self) -> list[Cut]:
        """The stream ends here."""
        return self._take(self._held, last=True)

    def _take(self, lines: Digests, *, last: bool) -> list[Cut]:
        origin, at = self.start, 0
        cuts: list[Cut] = []
        fine = np.flatnonzero(lines >= _FINE_THRESHOLD)
        self.fine, ends = fine.tolist(), fine[lines[fine] >= _THRESHOLD].tolist()
        for begin, end in self._zero_runs(lines):
            cuts += (Cut(origin + a, origin + b) for a, b in _cut(lines, ends, at, begin, closed=True))
            cuts.append(Cut(origin + begin, origin + end, zero=True))
            at = end
        certain = len(lines) if last else _without_zeros(lines, at)
        for a, b in _cut(lines, ends, at, certain, closed=last):
            cuts.append(Cut(origin + a, origin + b))
            at = b
        if cuts:
            self._in_zeros = cuts[-1].zero
        self.start, self._held = origin + at, lines[at:].copy()
        return cuts

    def _zero_runs(self, lines: Digests) -> Iterator[tuple[int, int]]:
        """Runs that are long enough, or go on from the last cut."""
        zero = lines == 0
        if not zero.any():
            return
        edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
            if end - begin >= ZERO_LINES or (begin == 0 and self._in_zeros):
                yield begin, end


def _without_zeros(lines: Digests, at: int) -> int:
    """The end of what is certainly data: zeros at the end may turn out to begin a long run."""
    begin = max(at, len(lines) - ZERO_LINES)
    data = np.flatnonzero(lines[begin:])
    return begin + int(data[-1]) + 1 if len(data) else begin


def _cut(
    lines: Digests, ends: list[int], start: int, stop: int, *, closed: bool
) -> Iterator[tuple[int, int]]:
    """Chunks of lines[start:stop], which hold no long run of zeros. `ends`: lines that may end a chunk.
    `closed`: nothing follows, so the rest is a chunk, however small."""
    at = 0
    while start < stop:
        first, last = start + MIN_LINES - 1, start + MAX_LINES - 1
        at = bisect_left(ends, first, at)
        if at < len(ends) and ends[at] <= min(last, stop - 1):
            end = ends[at] + 1
        elif last < stop:
            window = lines[first : last + 1]
            end = last + 1 - int(np.argmax(window[::-1]))
        elif closed:
            end = stop
        else:
            return
        yield start, end
        start = end
