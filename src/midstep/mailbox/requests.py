"""Store requests and their replies as bytes: an operation's number and a list of byte strings. Standard
library only."""

from __future__ import annotations

import enum
import struct
from typing import List, Sequence, Tuple

_HEAD = struct.Struct("=BI")
_SIZE = struct.Struct("=I")


class Ask(enum.IntEnum):
    """What a request asks of the store."""

    SET = 1  # key, value
    GET = 2  # key; waits for it; value
    ADD = 3  # key, amount in decimal; the sum in decimal
    COMPARE_SET = 4  # key, expected, desired; the value afterwards
    WAIT = 5  # keys; waits for all
    CHECK = 6  # keys; b"1" when all are there
    DELETE = 7  # key; b"1" when it was there
    COUNT = 8  # prefix; how many keys have it, in decimal
    APPEND = 9  # key, value


def pack(number: int, parts: Sequence[bytes]) -> bytes:
    """A request as bytes."""
    out = [_HEAD.pack(number, len(parts))]
    for part in parts:
        out.append(_SIZE.pack(len(part)))
        out.append(part)
    return b"".join(out)


def unpack(data: bytes) -> Tuple[int, List[bytes]]:
    """The inverse of ``pack``; raises ValueError when bytes are missing."""
    try:
        number, count = _HEAD.unpack_from(data, 0)
        at = _HEAD.size
        parts: List[bytes] = []
        for _ in range(count):
            (size,) = _SIZE.unpack_from(data, at)
            at += 4
            if at + size > len(data):
                raise ValueError("a store request says %d bytes and has %d" % (size, len(data) - at))
            parts.append(data[at : at + size])
            at += size
    except struct.error as error:
        raise ValueError("a store request is cut short: %s" % error) from None
    return number, parts
