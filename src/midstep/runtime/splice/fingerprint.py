"""A fingerprint of much memory at about the speed of reading it: two that are equal are taken for a proof.

The bytes run through many lanes of 64 bits; each lane is ``lane = mix(lane * A + word)``, where a
multiplication by an odd number and a shifted exclusive or can both be undone. So a single difference can
never be lost, and several only by a coincidence of 64 bits in each of the lanes that they touch. The lanes
are hashed at the end.
Not made against an adversary: a rank can harm its own job in easier ways.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import torch

_A = 0x9E3779B97F4A7C15 - (1 << 64)
_SHIFT = 29
_MOST_LANES = 1 << 15
_LEAST_LANES = 1 << 10
_DIGEST_BYTES = 16


class Fingerprint:
    """Reused from step to step: ``feed`` everything, then ``digest``, which begins anew."""

    def __init__(self, total_bytes: int) -> None:
        lanes = _MOST_LANES
        while lanes > _LEAST_LANES and lanes * 8 * 16 > total_bytes:
            lanes //= 2
        self._lanes, self._block_bytes = lanes, lanes * 8
        self._acc = torch.zeros(lanes, dtype=torch.int64, device="cpu")
        self._shifted = torch.zeros(lanes, dtype=torch.int64, device="cpu")
        self._stage = torch.zeros(lanes, dtype=torch.int64, device="cpu")
        self._stage_at: int = self._stage.data_ptr()
        self._type: Any = ctypes.c_int64 * lanes
        self._staged = 0
        self._fed = 0

    def feed(self, address: int, nbytes: int) -> None:
        """Add memory. Where one stretch ends and the next begins does not count: hash lengths besides."""
        self._fed += nbytes
        block = self._block_bytes
        if nbytes >= 2 * block and not address % 8:
            self._flush()
            while nbytes >= block:
                self._mix(torch.frombuffer(self._type.from_address(address), dtype=torch.int64))
                address += block
                nbytes -= block
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
        acc, lanes = self._acc, self._lanes
        while lanes > _LEAST_LANES:
            lanes //= 2
            torch.add(acc[lanes : 2 * lanes], acc[:lanes], alpha=_A, out=self._shifted[:lanes])
            acc[:lanes].copy_(self._shifted[:lanes])
            torch.bitwise_right_shift(acc[:lanes], _SHIFT, out=self._shifted[:lanes])
            acc[:lanes].bitwise_xor_(self._shifted[:lanes])
        total = hashlib.blake2b(more, digest_size=_DIGEST_BYTES)
        total.update(b"%d" % self._fed)
        total.update(ctypes.string_at(acc.data_ptr(), lanes * 8))
        acc.zero_()
        self._acc.zero_()
        self._fed = 0
        return total.digest()

    def _flush(self) -> None:
        if self._staged:
            ctypes.memset(self._stage_at + self._staged, 0, self._block_bytes - self._staged)
            self._staged = 0
            self._mix(self._stage)

    def _mix(self, words: torch.Tensor) -> None:
        acc, shifted = self._acc, self._shifted
        torch.add(words, acc, alpha=_A, out=acc)
        torch.bitwise_right_shift(acc, _SHIFT, out=shifted)
        acc.bitwise_xor_(shifted)
