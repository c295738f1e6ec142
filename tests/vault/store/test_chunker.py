"""Cuts depend on content alone: not on where it lies, nor on how it arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from midstep.vault.store.chunker import (
    CARRY_LINES,
    LINE,
    MAX_LINES,
    MIN_LINES,
    PAGE,
    ZERO_LINES,
    Cut,
    Cutter,
    Digests,
    fine_ends,
    line_digests,
    pieces,
)

# Runs of lines: ("fresh", n) are all different, ("same", n) one line again and again, ("two", n) alternating.
KINDS = ("fresh", "same", "two", "zero")
SHAPES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 9000)), min_size=1, max_size=6)


def digests(shape: list[tuple[str, int]], seed: int = 0) -> Digests:
    """Digests of a stream; only those of zero pages are 0."""
    random = np.random.default_rng(seed)
    pieces: list[NDArray[np.uint64]] = []
    for kind, pages in shape:
        period = {"fresh": pages, "same": 1, "two": 2, "zero": 1}[kind]
        some = random.integers(1, 2**64 - 1, period, np.uint64, endpoint=True)
        pieces.append(np.resize(some * np.uint64(kind != "zero"), pages))
    return np.concatenate(pieces)


def cut(pages: Digests, steps: list[int] | None = None) -> list[Cut]:
    """All cuts of a stream fed in pieces of these sizes, again and again; zeros that touch are one."""
    cutter, at, found = Cutter(), 0, list[Cut]()
    steps = steps or [len(pages)]
    turn = 0
    while at < len(pages):
        found += cutter.feed(pages[at : at + steps[turn % len(steps)]])
        at = min(len(pages), at + steps[turn % len(steps)])
        turn += 1
        assert at - cutter.start <= CARRY_LINES
    return joined(found + cutter.finish())


def joined(cuts: list[Cut]) -> list[Cut]:
    out: list[Cut] = []
    for item in cuts:
        if out and out[-1].zero and item.zero:
            out[-1] = Cut(out[-1].start, item.end, zero=True)
        else:
            out.append(item)
    return out


def contents(pages: Digests) -> list[bytes]:
    return [pages[item.start : item.end].tobytes() for item in cut(pages) if not item.zero]


@given(SHAPES, st.integers(0, 5))
def test_cuts_cover_the_stream_within_bounds(shape: list[tuple[str, int]], seed: int) -> None:
    pages = digests(shape, seed)
    cuts = cut(pages)
    assert [item.start for item in cuts] == [0, *(item.end for item in cuts[:-1])]
    assert cuts[-1].end == len(pages)
    for before, item in zip(cuts, [*cuts[1:], None]):
        length = before.end - before.start
        if before.zero:
            assert not pages[before.start : before.end].any()
            assert length >= ZERO_LINES
        else:
            assert length <= MAX_LINES
            assert length >= MIN_LINES or item is None or item.zero


@given(SHAPES, st.lists(st.integers(200, 6000), min_size=1, max_size=5))
def test_how_a_stream_is_divided_makes_no_difference(shape: list[tuple[str, int]], steps: list[int]) -> None:
    pages = digests(shape)
    assert cut(pages, steps) == cut(pages)


@given(st.integers(0, 2560), st.integers(ZERO_LINES, 32_000), st.integers(0, 2560), st.integers(0, 768))
def test_a_hole_is_cut_like_zeros(before: int, hole: int, after: int, edge: int) -> None:
    data = digests([("fresh", 6400 + before), ("zero", edge)])
    rest = digests([("zero", edge), ("fresh", 6400 + after)], seed=1)
    cutter = Cutter()
    found = cutter.feed(data) + cutter.zeros(hole) + cutter.feed(rest) + cutter.finish()
    assert joined(found) == cut(np.concatenate((data, np.zeros(hole, np.uint64), rest)))


@settings(max_examples=60)
@given(st.integers(0, 128_000), st.integers(1, 12_800), st.integers(0, 1000))
def test_lines_put_into_the_middle_change_a_few_chunks(at: int, count: int, seed: int) -> None:
    old = digests([("fresh", 128_000)], seed)
    new = np.concatenate((old[:at], digests([("fresh", count)], seed + 5000), old[at:]))
    fresh = set(contents(new)) - set(contents(old))
    # what was put in, and what it takes to meet a common boundary again on either side
    assert sum(len(chunk) // 8 for chunk in fresh) <= count + 8 * MAX_LINES
    assert len(fresh) <= count // MIN_LINES + 24


@pytest.mark.parametrize("kind", ["same", "two"])
def test_runs_of_equal_lines_become_a_few_chunks_again_and_again(kind: str) -> None:
    found = contents(digests([(kind, 320_000)]))
    assert len(set(found)) <= 3
    assert len(found) <= 320_000 // MIN_LINES + 1


def test_chunks_are_about_as_large_as_they_shall_be() -> None:
    found = contents(digests([("fresh", 3_200_000)]))
    assert 1024 <= 3_200_000 / len(found) <= 2048


@given(st.integers(1, 5 * PAGE), st.integers(0, 5 * PAGE - 1))
def test_only_pages_of_zeros_have_digests_of_zero(size: int, at: int) -> None:
    data = bytearray(size)
    lines = -(-size // LINE)
    assert line_digests(data).tolist() == [0] * lines
    data[at % size] = 1
    first = at % size // PAGE * (PAGE // LINE)
    assert np.flatnonzero(line_digests(data)).tolist() == list(range(first, min(lines, first + PAGE // LINE)))


def test_lines_that_look_like_zeros_are_not_taken_for_them() -> None:
    data = np.zeros(PAGE // 8, np.uint64)
    data[0] = np.uint64(1)  # a word that is not looked at
    assert line_digests(data.tobytes()).all()


def heap(seed: int, nbytes: int) -> bytes:
    """Small numbers in words of eight bytes, as heaps have them."""
    return np.random.default_rng(seed).integers(0, 10**6, nbytes // 8, np.uint64).tobytes()


def cut_finer(chunk: memoryview) -> list[memoryview]:
    return pieces(chunk, fine_ends(line_digests(chunk)))


@given(st.integers(0, 300_000), st.integers(0, 100))
def test_pieces_are_the_chunk_and_not_too_small(nbytes: int, seed: int) -> None:
    chunk = memoryview(heap(seed, nbytes) + bytes(nbytes % 8))
    found = cut_finer(chunk)
    assert b"".join(found) == chunk
    assert all(PAGE <= len(piece) <= 17 * PAGE for piece in found) or len(found) == 1


@given(st.integers(1, 3000), st.integers(0, 50))
def test_pieces_are_the_same_wherever_a_chunk_lies(before: int, seed: int) -> None:
    chunk, front = heap(seed, 128 << 10), heap(seed + 1000, before * LINE)
    ends = fine_ends(np.concatenate((line_digests(front), line_digests(chunk))))
    assert pieces(memoryview(chunk), ends, before) == cut_finer(memoryview(chunk))


def test_a_byte_that_changes_in_a_heap_costs_one_piece() -> None:
    old = heap(1, 256 << 10)
    new = bytearray(old)
    new[100_000] ^= 1
    fresh = set(map(bytes, cut_finer(memoryview(new)))) - set(map(bytes, cut_finer(memoryview(old))))
    assert sum(map(len, fresh)) <= 2 * 17 * PAGE


def test_tensors_are_not_cut_finer() -> None:
    chunk = memoryview(np.random.default_rng(1).standard_normal(40_000).astype(np.float32).tobytes())
    assert cut_finer(chunk) == [chunk]
