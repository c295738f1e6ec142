"""A chunk's stored form: a byte that says how, then the content, compressed where that pays.

Most of a training job's memory is floating-point numbers with random low bits, which shrink by a few percent
for much work: a glance at two places decides whether to try at all.
"""

from __future__ import annotations

import threading

import zstandard

from midstep.vault.backends.base import Buffer

RAW, ZSTD = 0, 1
_LEVEL = 1
_GLANCE = 2048  # bytes, at two places
_PAYS_GLANCE, _PAYS = 0.85, 0.95  # compressed to plain, at most
_local = threading.local()


class CodecError(ValueError):
    """Stored bytes that no encoder of ours gives."""


def encode(plain: memoryview) -> tuple[int, Buffer]:
    """The kind, and the bytes to store after it."""
    if _looks_compressible(plain):
        small = _compressor().compress(plain)
        if len(small) <= _PAYS * len(plain):
            return ZSTD, small
    return RAW, plain


def decode(stored: memoryview, plain_bytes: int) -> Buffer:
    """The content, of exactly that many bytes. CodecError. The result may be a view of `stored`."""
    if not len(stored):
        raise CodecError("nothing is there")
    kind, payload = stored[0], stored[1:]
    if kind == RAW:
        if len(payload) != plain_bytes:
            raise CodecError(f"{len(payload)} bytes instead of {plain_bytes}")
        return payload
    if kind != ZSTD:
        raise CodecError(f"unknown kind {kind}")
    try:
        # the frame's own claim first: damaged bytes must not make us allocate what they please
        if zstandard.frame_content_size(payload) != plain_bytes:
            raise CodecError(f"not a frame of {plain_bytes} bytes")
        return _decompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from None


def _looks_compressible(plain: memoryview) -> bool:
    if len(plain) < 4 * _GLANCE:
        return len(plain) > 64
    at = len(plain) // 4
    sample = b"".join((plain[at : at + _GLANCE], plain[3 * at - _GLANCE : 3 * at]))
    return len(_compressor().compress(sample)) <= _PAYS_GLANCE * len(sample)


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return _local.compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor
