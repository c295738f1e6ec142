"""What proxies of one job say to each other: a fixed head, then ``length`` bytes.

Version 1. All proxies of a job run the same release; the hello carries the version and refuses another.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

VERSION = 1
HEAD = struct.Struct("=BBBBBxHQQIIiiqQIQ")
HELLO = struct.Struct("=IQII")  # version, epoch, index, listening port; then the job's id
MARK = struct.Struct(
    "=QQIi"
)  # an entry of ACK, P2P_ACK and P2P_FIN: gid, seq, chunk, sender (-1: a collective)
ASKED = struct.Struct("=QQQ")  # STORE_*: mailbox, stamp, lowest outstanding stamp; then request or reply


class FrameType(enum.IntEnum):
    """Why a frame was sent."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3  # bytes: why
    OP = 4  # this node's part of a collective
    ACK = 5  # collectives that are committed on this node
    P2P = 6  # a SEND's chunk
    P2P_ACK = 7  # chunks that were received here
    P2P_FIN = 8  # chunks whose senders know that they were received
    P2P_FAIL = 9  # a chunk that cannot be received; bytes: why
    DEAD = 10  # a member on this node has ended; bytes: how
    STORE_ASK = 11
    STORE_REPLY = 12
    STORE_CANCEL = 13
    STORE_FAIL = 14  # bytes after ASKED: why
    MARKER = 15  # the cut: nothing of this epoch follows
    OP_FAIL = 16  # a collective that cannot be carried out here; bytes: why


FLAG_DONE = 1  # the sender's members have the result already
FLAG_BAD = 2  # the sender's members contradict each other; bytes: how


class Head(NamedTuple):
    """The head of a frame; what a type does not use is 0."""

    type: int
    flags: int = 0
    kind: int = 0
    dtype: int = 0
    reduce: int = 0
    reserved: int = 0
    gid: int = 0
    seq: int = 0
    chunk: int = 0
    chunks: int = 0
    root: int = 0  # collectives: the root; P2P: the sender
    peer: int = 0  # P2P: the receiver; DEAD: the member
    tag: int = 0
    total: int = 0
    check: int = 0  # of the splits
    length: int = 0  # bytes that follow

    def pack(self) -> bytes:
        """The head as bytes."""
        return HEAD.pack(*self)
