"""What replicas are compared by: equal bytes have equal fingerprints, others never have."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.runtime.splice.fingerprint import Fingerprint

NBYTES = 3 * (1 << 16) + 40
CONTENT = random.Random(0).randbytes(NBYTES)


def fingerprint(content: bytes, parts: Sequence[int] = ()) -> bytes:
    """Fed in parts that end there."""
    memory = ctypes.create_string_buffer(content, len(content))
    it, begin = Fingerprint(len(content)), 0
    for end in [*sorted(parts), len(content)]:
        it.feed(ctypes.addressof(memory) + begin, end - begin)
        begin = end
    return it.digest(b"")


def flipped(content: bytes, *bits: int) -> bytes:
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


PLAIN = fingerprint(CONTENT)


@settings(deadline=None, max_examples=60)
@given(bits=st.sets(st.integers(0, NBYTES * 8 - 1), min_size=1, max_size=3))
def test_other_bits_are_seen(bits: set[int]) -> None:
    assert fingerprint(flipped(CONTENT, *bits)) != PLAIN


@pytest.mark.parametrize("far", [8, 1 << 10, 1 << 13, 1 << 15, 1 << 16])
def test_two_signs_that_change_are_seen(far: int) -> None:
    """The highest bits of two words, wherever the other lies."""
    for word in range(0, NBYTES // 8 - far // 8 - 1, 517):
        first = word * 64 + 63
        assert fingerprint(flipped(CONTENT, first, first + far * 8)) != PLAIN, word


@pytest.mark.parametrize("size", [1 << 13, 1 << 14, 1 << 15, 1 << 16])
def test_the_same_in_another_order_is_seen(size: int) -> None:
    assert fingerprint(CONTENT[size : 2 * size] + CONTENT[:size] + CONTENT[2 * size :]) != PLAIN


def test_zeros_count() -> None:
    assert fingerprint(bytes(NBYTES)) != fingerprint(bytes(NBYTES + 8))
    assert fingerprint(bytes(NBYTES)) != fingerprint(flipped(bytes(NBYTES), NBYTES * 8 - 1))


@settings(deadline=None, max_examples=30)
@given(parts=st.lists(st.integers(0, NBYTES), max_size=4))
def test_the_same_stretches_give_the_same_again(parts: list[int]) -> None:
    """One object is used again and again; addresses and alignment are another process's own."""
    assert fingerprint(CONTENT, parts) == fingerprint(bytes(bytearray(CONTENT)), parts)
    memory = ctypes.create_string_buffer(CONTENT, NBYTES)
    it = Fingerprint(NBYTES)
    for _ in range(2):
        it.feed(ctypes.addressof(memory), NBYTES)
        assert it.digest(b"") == PLAIN
