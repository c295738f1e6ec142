"""Encoding gives back what was put in, and believes nothing it is shown."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.vault.store import codec


def stored(plain: bytes) -> bytes:
    kind, payload = codec.encode(memoryview(plain))
    return bytes([kind]) + bytes(payload)


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_round_trip(part: bytes, times: int) -> None:
    plain = part * times
    assert codec.decode(memoryview(stored(plain)), len(plain)) == plain


def test_text_is_compressed_and_noise_is_not() -> None:
    assert len(stored(b"midstep " * 10_000)) < 1000
    noise = os.urandom(100_000)
    assert stored(noise) == b"\0" + noise


def test_floats_of_an_optimizer_are_left_alone() -> None:
    floats = np.random.default_rng(0).standard_normal(32_000).astype(np.float32).tobytes()
    assert stored(floats)[0] == codec.RAW


@pytest.mark.parametrize("damage", [b"", b"\7abc", b"\1", b"\1not a frame", b"\0too short"])
def test_nonsense_is_refused(damage: bytes) -> None:
    with pytest.raises(codec.CodecError):
        codec.decode(memoryview(damage), 100)


def test_a_frame_that_claims_another_size_is_refused_before_memory_is_taken() -> None:
    bomb = stored(bytes(50_000_000))
    with pytest.raises(codec.CodecError, match="frame of 100 bytes"):
        codec.decode(memoryview(bomb), 100)
