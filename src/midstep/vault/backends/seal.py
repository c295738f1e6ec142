"""The format of an encrypted object: a header, then segments, each encrypted by itself so that ranges can be
read.

    0    8  b"MSSEAL" + format (2 bytes, big-endian)
    8    8  which key: derived from it, says nothing about it
    16  16  salt: chance, another one for every object that is written
    32   8  length of the plain object, big-endian
    40      segments: 64 KiB plain (the last one shorter; an empty object has an empty one) + 16 bytes tag

AES-256-GCM under a key derived (HKDF-SHA256) from the vault's key and the object's salt; nonce: the
segment's number; associated data: header and name. So no nonce is used twice, and what was altered, cut,
reordered, mixed from two versions or moved to another name is found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from midstep.vault.backends.base import Buffer, as_bytes
from midstep.vault.errors import FormatUnknown, ObjectDamaged, WrongKey

FORMAT = 1
SEGMENT_BYTES = 64 * 1024
TAG_BYTES = 16
SALT_BYTES = 16
_MAGIC = b"MSSEAL"
_HEADER = struct.Struct(">6sH8s16sQ")
HEADER_BYTES = _HEADER.size
_STEP = SEGMENT_BYTES + TAG_BYTES


def key_id(key: bytes) -> bytes:
    """Eight bytes that tell keys apart and give nothing away."""
    return _derive(key, b"", b"midstep vault key id", 8)


def plain_size(sealed_bytes: int) -> int:
    """Length of the plain object from that of the encrypted one."""
    body = max(0, sealed_bytes - HEADER_BYTES)
    return max(0, body - TAG_BYTES * -(-body // _STEP))


@dataclass(frozen=True, slots=True)
class Seal:
    """An encrypted object's header."""

    key: bytes  # its id
    salt: bytes
    plain_bytes: int

    def header(self) -> bytes:
        return _HEADER.pack(_MAGIC, FORMAT, self.key, self.salt, self.plain_bytes)

    def body(self, start: int, end: int) -> tuple[int, int]:
        """Where in the encrypted object the segments of a plain range are: offset, length."""
        first, last = start // SEGMENT_BYTES, max(start, end - 1) // SEGMENT_BYTES
        stop = min((last + 1) * SEGMENT_BYTES, self.plain_bytes) + TAG_BYTES * (last + 1)
        return HEADER_BYTES + first * _STEP, stop - first * _STEP

    @property
    def sealed_bytes(self) -> int:
        offset, length = self.body(0, self.plain_bytes)
        return offset + length


def read_header(raw: bytes, name: str) -> Seal:
    """ObjectDamaged; FormatUnknown."""
    if len(raw) < HEADER_BYTES or raw[:6] != _MAGIC:
        raise ObjectDamaged(
            f"object {name} is not encrypted by Midstep, though the vault is: it was altered, or put "
            f"there by others"
        )
    _, version, key, salt, plain_bytes = _HEADER.unpack_from(raw)
    if version != FORMAT:
        raise FormatUnknown(
            f"object {name} is encrypted in format {version}; this Midstep reads format {FORMAT}: use the "
            f"version that wrote it"
        )
    return Seal(key, salt, plain_bytes)


class Cipher:
    """Encrypts and decrypts objects under the vault's key. Threads may share it."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = key_id(key)

    def seal(self, name: str, data: Buffer, salt: bytes) -> bytes:
        """The encrypted object. A salt is never used twice with other data."""
        plain = as_bytes(data)
        seal = Seal(self.key_id, salt, len(plain))
        aead, bound = self._of(seal, name)
        segments = (
            aead.encrypt(_nonce(number), plain[at : at + SEGMENT_BYTES], bound)
            for number, at in enumerate(range(0, max(1, len(plain)), SEGMENT_BYTES))
        )
        return b"".join((seal.header(), *segments))

    def open(self, name: str, seal: Seal, start: int, end: int, body: Buffer) -> bytes:
        """Bytes `start` to `end` from the segments that `seal.body` names. ObjectDamaged; WrongKey."""
        if seal.key != self.key_id:
            raise WrongKey(
                f"object {name} is encrypted with key {seal.key.hex()}, and the key given is "
                f"{self.key_id.hex()}: "
                "give the vault's own key"
            )
        first = start // SEGMENT_BYTES
        plain = b"".join(self._segments(name, seal, first, memoryview(body)))
        skip = start - first * SEGMENT_BYTES
        return plain if skip == 0 and len(plain) == end - start else plain[skip : skip + end - start]

    def _segments(self, name: str, seal: Seal, first: int, body: memoryview) -> Iterator[bytes]:
        aead, bound = self._of(seal, name)
        for number, at in enumerate(range(0, len(body), _STEP), first):
            try:
                yield aead.decrypt(_nonce(number), body[at : at + _STEP], bound)
            except InvalidTag:
                raise ObjectDamaged(
                    f"object {name} is not what was written under that name (segment {number}, from byte "
                    f"{number * SEGMENT_BYTES}): it was altered, or moved from another name"
                ) from None

    def _of(self, seal: Seal, name: str) -> tuple[AESGCM, bytes]:
        key = _derive(self._key, seal.salt, b"midstep vault object", 32)
        return AESGCM(key), seal.header() + name.encode()


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _derive(key: bytes, salt: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, purpose).derive(key)
