"""A fingerprint of much memory at about the speed of reading it: two that are equal are taken for a proof.

The bytes run through many lanes of 64 bits, ``lanes = words + A * turned(lanes)``: ``turned`` is the ring of
all lanes' bytes, turned by half a lane, so that the high bits of one, which a multiplication never moves
down, are the low bits of another in the next round. A is odd: turning, multiplying and adding can all be
undone. So a single difference can never be lost, and several only by a coincidence of the bits in the lanes
that they touch. The lanes are hashed at the end.
Not made against an adversary: a rank can harm its own job in easier ways.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import ctypes
import hashlib
from collections import deque
from itertools import accumulate
from typing import Any, List, Sequence

import torch

_A = 0x9E3779B97F4A7C15 - (1 << 64)
_TURN_BYTES = 4
_MOST_LANES = 1 << 13
_LEAST_LANES = 1 << 10
_DIGEST_BYTES = 16
_SHORT_BYTES, _GATHER_BYTES = 64 << 10, 1 << 20


class Fingerprint:
    """Reused from step to step: ``feed`` everything, then ``digest``, which begins anew."""

    def __init__(self, total_bytes: int) -> None:
        lanes = _MOST_LANES
        while lanes > _LEAST_LANES and lanes * 8 * 16 > total_bytes:
            lanes //= 2
        self._lanes, self._block_bytes = lanes, lanes * 8
        self._rings = [_Ring(lanes), _Ring(lanes)]  # before and after a round
        self._stage = torch.zeros(lanes, dtype=torch.int64, device="cpu")
        self._stage_at: int = self._stage.data_ptr()
        self._staged = 0
        self._fed = 0
        self._gathered: Any = (ctypes.c_ubyte * 0)()

    def feed_all(self, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Add many stretches, short ones first: they are collected by one call each, and fed together."""
        short: List[int] = []
        nbytes = 0
        for place, size in enumerate(sizes):
            if size < _SHORT_BYTES:
                short.append(place)
                nbytes += size
                if nbytes >= _GATHER_BYTES:
                    self._feed_short(short, nbytes, addresses, sizes)
                    short, nbytes = [], 0
        self._feed_short(short, nbytes, addresses, sizes)
        for address, size in zip(addresses, sizes):
            if size >= _SHORT_BYTES:
                self.feed(address, size)

    def _feed_short(
        self, places: List[int], nbytes: int, addresses: Sequence[int], sizes: Sequence[int]
    ) -> None:
        if len(self._gathered) < nbytes:
            self._gathered = (ctypes.c_ubyte * (nbytes + _GATHER_BYTES))()
        start = ctypes.addressof(self._gathered)
        lengths = [sizes[place] for place in places]
        sources = [addresses[place] for place in places]
        deque(map(ctypes.memmove, accumulate(lengths, initial=start), sources, lengths), 0)
        self.feed(start, nbytes)

    def feed(self, address: int, nbytes: int) -> None:
        """Add memory. Where one stretch ends and the next begins does not count: hash lengths besides."""
        self._fed += nbytes
        block = self._block_bytes
        if nbytes >= 2 * block and not address % 8:
            self._flush()
            blocks = nbytes // block
            words: Any = (ctypes.c_int64 * (blocks * self._lanes)).from_address(address)
            for part in torch.frombuffer(words, dtype=torch.int64).split(self._lanes):
                self._mix(part)
            address += blocks * block
            nbytes -= blocks * block
        while nbytes:
            part = min(nbytes, block - self._staged)
            ctypes.memmove(self._stage_at + self._staged, address, part)
            self._staged += part
            address += part
            nbytes -= part
            if self._staged == block:
                self._staged = 0
                self._mix(self._stage)

    def digest(self, more: bytes) -> bytes:
        """The fingerprint of what was fed, and of ``more``."""
        self._flush()
        total = hashlib.blake2b(more, digest_size=_DIGEST_BYTES)
        total.update(b"%d" % self._fed)
        total.update(self._rings[0].content())
        self._rings[0].clear()
        self._fed = 0
        return total.digest()

    def _flush(self) -> None:
        if self._staged:
            ctypes.memset(self._stage_at + self._staged, 0, self._block_bytes - self._staged)
            self._staged = 0
            self._mix(self._stage)

    def _mix(self, words: torch.Tensor) -> None:
        before, after = self._rings
        torch.add(words, before.turned, alpha=_A, out=after.lanes)
        after.close()
        self._rings = [after, before]


class _Ring:
    """The lanes; ``turned`` names the same memory from half a lane on."""

    def __init__(self, lanes: int) -> None:
        self._nbytes = lanes * 8
        self._memory: Any = (ctypes.c_ubyte * (self._nbytes + 8))()
        self._at = ctypes.addressof(self._memory)
        self.lanes = torch.frombuffer(self._memory, dtype=torch.int64, count=lanes)
        self.turned = torch.frombuffer(self._memory, dtype=torch.int64, count=lanes, offset=_TURN_BYTES)

    def close(self) -> None:
        """The end goes on where the beginning is."""
        ctypes.memmove(self._at + self._nbytes, self._at, _TURN_BYTES)

    def content(self) -> bytes:
        """All of it."""
        return ctypes.string_at(self._at, self._nbytes)

    def clear(self) -> None:
        """All zeros."""
        ctypes.memset(self._at, 0, self._nbytes + 8)
