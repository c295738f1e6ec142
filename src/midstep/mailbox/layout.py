"""The mailbox's memory: a memfd that one process of a rank owns and the node's proxy maps as well.

::

    0          header: magic, version, owner, two futex words
    SLOTS_AT   slot table: one slot an operation, group definition or store request
    RING_AT    post ring: indices of slots that were posted, in order; the posted word counts them
    TEXT_AT    one message an slot, for failures
    HEAP_AT    blocks: input, splits and output of a slot, in one block

The file grows by whole segments, each mapped by itself, so nothing that was mapped ever moves. Who writes
what: the owner writes everything but ``done``, ``fence`` and a slot's result words, which the proxy writes;
of a slot's state, the owner writes FREE, FILLING, POSTED and CLOSED and the proxy DONE, FAILED and RELEASED.
The state word is written last, by a single store.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import struct
import weakref
from typing import List, NamedTuple, Tuple

NAME = "midstep-mailbox"
MAGIC = 0x6D69647374657031
VERSION = 2
SEGMENT_BYTES = 32 << 20
CHUNK_BYTES = 1 << 20  # both sides of an operation are cut at multiples of this (see cut.py)

_MADV_DONTFORK = 10

SLOTS = 2048
SLOT_BYTES = 128
RING = 8192
TEXT_BYTES = 1024
SLOTS_AT = 4096
RING_AT = SLOTS_AT + SLOTS * SLOT_BYTES
TEXT_AT = RING_AT + RING * 4
HEAP_AT = (TEXT_AT + SLOTS * TEXT_BYTES + 0xFFFF) & ~0xFFFF

HEADER = struct.Struct("=QIIQii")  # magic, version, pid in its own namespace, uid, rank, world size
POSTED_WORD = 64 // 4
DONE_WORD = 128 // 4
FENCE_WORD = 192 // 4  # the newest epoch whose proxy has opened this mailbox
SLOT_WORDS = SLOT_BYTES // 4
STATE_WORD = SLOTS_AT // 4  # + slot * SLOT_WORDS
FLAGS_WORD = STATE_WORD + 1
RESULT_AT = SLOTS_AT + 8  # + slot * SLOT_BYTES
RESULT = struct.Struct("=iIQ")  # peer, text bytes, number: see Body.match
BODY_AT = SLOTS_AT + 24
BODY = struct.Struct("=QQQIIBBBxiiqQQIIdHHQQ")

LARGEST_REQUEST_BYTES = 24 << 20
KIND_GROUP = 64  # input: the group's definition; POSTED as long as it is open
KIND_STORE = 65  # input: a request; output: the reply, RESULT.number bytes of it
FLAG_CANCEL = 1
AGAIN = -2  # RESULT.peer of a released slot: its memory cannot stay in place, post in chunks
PIECE_BYTES = 128 << 10  # of memory that stays in place; a few of them fit a processor's own cache
JOURNAL_AT = 4096
_LANES = 8


class State(enum.IntEnum):
    """A slot's life: FREE -> FILLING -> POSTED -> DONE | FAILED -> RELEASED -> FREE; FAILED is final as well.

    Whatever is not below DONE has an outcome; whatever is not below FAILED may be reused.
    """

    FREE = 0
    FILLING = 1  # the owner copies the input; the block is live, the operation is not posted
    CLOSED = 2  # group definitions only: the owner has closed it; the proxy answers RELEASED
    POSTED = 3
    DONE = 4  # the output is written; another node may still need the input
    FAILED = 5  # the text says why
    RELEASED = 6  # every participant has its output: the slot is the owner's again


class Body(NamedTuple):
    """What the owner says about a posted slot. Lengths in bytes."""

    gid: int
    seq: int
    stamp: int  # counts the owner's posts
    chunk: int
    chunks: int
    kind: int
    dtype: int
    reduce: int
    root: int
    peer: int
    tag: int
    total: int  # of the whole operation's element buffer: equal in all members where the kind says so
    block: int
    in_len: int
    out_len: int
    scale: float
    splits: int  # how many numbers follow the input (0: all parts are equal)
    out_splits: int
    match: int  # RECV, chunk > 0: number of the send; STORE: lowest stamp still outstanding
    source: int = 0  # ALLREDUCE: the address of its memory, where that stays in place (see direct.py)

    def out_at(self) -> int:
        """Where the output begins in the file."""
        return self.block + out_offset(self.in_len, self.splits + self.out_splits)


def splits_offset(in_len: int) -> int:
    """Where the splits begin in a block."""
    return (in_len + 7) & ~7


def out_offset(in_len: int, numbers: int) -> int:
    """Where the output begins in a block."""
    return (splits_offset(in_len) + 8 * numbers + 63) & ~63 if in_len or numbers else 0


def lanes_of(total: int) -> int:
    """In how many lanes memory that stays in place is worked on."""
    return min(_LANES, -(-total // PIECE_BYTES))


class MailboxMap:
    """The mapped file, for either side. ``words`` are the header, the slots and the ring as 32-bit words."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.segments: List[memoryview] = []
        self.bases: List[int] = []
        self.mapped = 0
        self.follow()
        self.memory = self.segments[0][:HEAP_AT]
        self.words = self.memory.cast("I")
        self.ring = self.memory[RING_AT : RING_AT + 4 * RING].cast("I")
        self.posted_address = self.bases[0] + POSTED_WORD * 4
        self.done_address = self.bases[0] + DONE_WORD * 4

    def follow(self) -> None:
        """Map the segments that the file has gained."""
        size = os.fstat(self.fd).st_size
        while self.mapped + SEGMENT_BYTES <= size:
            segment, base = _map(self.fd, self.mapped)
            self.segments.append(segment)
            self.bases.append(base)
            self.mapped += SEGMENT_BYTES

    def address(self, offset: int) -> int:
        """The address of a place in the file."""
        return self.bases[offset // SEGMENT_BYTES] + offset % SEGMENT_BYTES

    def view(self, offset: int, nbytes: int) -> memoryview:
        """A writable view of part of a block."""
        start = offset % SEGMENT_BYTES
        return self.segments[offset // SEGMENT_BYTES][start : start + nbytes]

    def body(self, slot: int) -> Body:
        """What the owner wrote about a slot."""
        return Body._make(BODY.unpack_from(self.memory, BODY_AT + slot * SLOT_BYTES))

    def state(self, slot: int) -> int:
        """A slot's state."""
        return self.words[STATE_WORD + slot * SLOT_WORDS]

    def text(self, slot: int) -> str:
        """The failure's message."""
        _, size, _ = RESULT.unpack_from(self.memory, RESULT_AT + slot * SLOT_BYTES)
        start = TEXT_AT + slot * TEXT_BYTES
        return bytes(self.memory[start : start + min(size, TEXT_BYTES)]).decode("utf-8", "replace")


# Python's own mmap keeps a duplicate of the descriptor: a forked child would go on holding the mailbox.
_Memory = ctypes.c_ubyte * SEGMENT_BYTES
_LIBC = ctypes.CDLL(None, use_errno=True)
_mmap = _LIBC.mmap64 if hasattr(_LIBC, "mmap64") else _LIBC.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _map(fd: int, offset: int) -> Tuple[memoryview, int]:
    """Map a segment, not inherited by forked children; it is unmapped with the last view of it."""
    base = _mmap(None, SEGMENT_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, offset)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "a mailbox of %d bytes could not be mapped" % SEGMENT_BYTES)
    _LIBC.madvise(base, SEGMENT_BYTES, _MADV_DONTFORK)
    memory = _Memory.from_address(base)
    weakref.finalize(memory, _unmap, os.getpid(), base).atexit = False
    return memoryview(memory).cast("B"), base


def _unmap(owner: int, base: int) -> None:
    if os.getpid() == owner:  # in a forked child something else may be there
        _LIBC.munmap(base, SEGMENT_BYTES)
