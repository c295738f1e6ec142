"""The owner's side of the mailbox: slots with their blocks, posting, taking results, reusing. Standard
library only."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import struct
import threading
import weakref
from typing import Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import futex
from .contract import ChannelError
from .heap import Heap, size_class_of
from .layout import (
    BODY,
    BODY_AT,
    DONE_WORD,
    HEADER,
    MAGIC,
    NAME,
    POSTED_WORD,
    RESULT,
    RESULT_AT,
    RING,
    SEGMENT_BYTES,
    SLOT_BYTES,
    SLOT_WORDS,
    SLOTS,
    STATE_WORD,
    VERSION,
    MailboxMap,
    State,
    out_offset,
    splits_offset,
)
from .seat import LEASE_WORD, Lease

_FREE, _FILLING, _POSTED = int(State.FREE), int(State.FILLING), int(State.POSTED)
_DONE, _FAILED, _RELEASED = int(State.DONE), int(State.FAILED), int(State.RELEASED)
_QUIET = int(Lease.HELD_QUIETLY)
_SWEEP = 64  # retired slots before one that is not released holds up no others
_memmove = ctypes.memmove


class Pair(NamedTuple):
    """A slot and the block that belongs to it for one operation (both are kept together when they are
    free)."""

    slot: int
    block: int
    size_class: int
    word: int  # index of the slot's state


class Core:
    """One mailbox, made and owned by this process."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.closed = "the mailbox could not be made"
        fd = os.memfd_create(NAME)  # close-on-exec
        os.ftruncate(fd, SEGMENT_BYTES)
        self.file = MailboxMap(fd)
        self.words = self.file.words
        self.uid = int.from_bytes(os.urandom(8), "little")
        self.lock = threading.Lock()
        self.posted_address = self.file.posted_address
        self.done_address = self.file.done_address
        self._bases = self.file.bases
        self._memory = self.file.memory
        self._ring = self.file.ring
        self._heap = Heap(self.file)
        self._slots = list(range(SLOTS - 1, -1, -1))
        self._pairs: Dict[int, List[Pair]] = collections.defaultdict(list)
        self._retired: Deque[Pair] = collections.deque()
        self._stamps = itertools.count(1)
        self.closed = ""  # why nothing can be posted any more
        _LIVE.add(self)
        HEADER.pack_into(self._memory, 0, 0, VERSION, os.getpid(), self.uid, rank, world_size)
        HEADER.pack_into(self._memory, 0, MAGIC, VERSION, os.getpid(), self.uid, rank, world_size)

    def shed(self) -> None:
        """Give memory that no slot uses back to the system."""
        with self.lock:
            self._reap()
            while self._unpair():
                pass
            self._heap.shed()

    def take(self, nbytes: int) -> Optional[Pair]:
        """A slot with a block of ``nbytes``, or None while every slot is in use. With the lock held."""
        if self.closed:
            raise ChannelError(self.closed)
        size_class = size_class_of(nbytes)
        self._reap()
        pairs = self._pairs[size_class]
        if pairs:
            return pairs.pop()
        if not self._slots and not self._unpair():
            return None
        block = self._heap.take(nbytes)
        slot = self._slots.pop()
        return Pair(slot, block, size_class, STATE_WORD + slot * SLOT_WORDS)

    def stamp(self) -> int:
        """The next number of a post."""
        return next(self._stamps)

    def fill(
        self, pair: Pair, body: Sequence[float], ins: Sequence[Tuple[int, int]], numbers: Sequence[int]
    ) -> None:
        """Describe the operation (a layout.Body), then copy its input and splits into the block."""
        BODY.pack_into(self._memory, BODY_AT + pair.slot * SLOT_BYTES, *body)
        self.words[pair.word] = _FILLING
        if ins:
            address = start = self.file.address(pair.block)
            for source, nbytes in ins:
                if nbytes:
                    _memmove(address, source, nbytes)
                    address += nbytes
            if numbers:
                at = splits_offset(address - start)
                self._numbers(pair.block + at, numbers)
        elif numbers:
            self._numbers(pair.block, numbers)

    def push(self, pair: Pair) -> None:
        """Post a filled slot and wake the proxy, unless nobody can make use of the post yet. Takes the
        lock."""
        words = self.words
        with self.lock:
            words[pair.word] = _POSTED
            self.ring(pair.slot)
        if words[LEASE_WORD] != _QUIET:
            futex.wake(self.posted_address)

    def ring(self, slot: int) -> None:
        """Make the proxy look at a slot (again). With the lock held; the caller wakes it afterwards."""
        words = self.words
        posted = words[POSTED_WORD]
        self._ring[posted % RING] = slot
        words[POSTED_WORD] = (posted + 1) & 0xFFFFFFFF

    def done_word(self) -> int:
        """The word that changes whenever the proxy has finished something: read it before looking at
        states."""
        return self.words[DONE_WORD]

    def copy_out(self, pair: Pair, in_len: int, numbers: int, outs: Sequence[Tuple[int, int]]) -> None:
        """Copy a finished slot's output to the job's memory."""
        address = self.file.address(pair.block) + out_offset(in_len, numbers)
        for target, nbytes in outs:
            if nbytes:
                _memmove(target, address, nbytes)
                address += nbytes

    def result(self, pair: Pair) -> Tuple[int, int]:
        """The proxy's answer beside the output: (peer, number)."""
        peer, _, number = RESULT.unpack_from(self._memory, RESULT_AT + pair.slot * SLOT_BYTES)
        return peer, number

    def retire(self, pair: Pair) -> None:
        """The owner needs this slot no more; it is reused as soon as the proxy does not either. With the lock
        held."""
        if self.words[pair.word] >= _FAILED:
            self._free(pair)
        else:
            self._retired.append(pair)

    def unreleased(self) -> int:
        """How many slots are done with here, but not on every node."""
        with self.lock:
            for _ in range(len(self._retired)):
                self.retire(self._retired.popleft())
            return len(self._retired)

    def forget(self) -> None:
        """In a forked child: never touch the parent's mailbox (its pages are not mapped here)."""
        if self.closed:
            return
        self.closed = (
            "this process was forked from one that uses torch.distributed; it has to initialise it anew"
        )
        os.close(self.file.fd)

    def close(self) -> None:
        """Close the file; the proxy sees the mailbox disappear."""
        with self.lock:
            if not self.closed:
                self.closed = "the channel is closed"
                os.close(self.file.fd)

    def __del__(self) -> None:
        if not self.closed:
            self.close()

    def _numbers(self, offset: int, numbers: Sequence[int]) -> None:
        struct.pack_into("=%dQ" % len(numbers), self.file.view(offset, 8 * len(numbers)), 0, *numbers)

    def _reap(self) -> None:
        retired, words = self._retired, self.words
        while retired and words[retired[0].word] >= _FAILED:
            self._free(retired.popleft())
        if len(retired) > _SWEEP:
            for _ in range(len(retired)):
                self.retire(retired.popleft())

    def _free(self, pair: Pair) -> None:
        self.words[pair.word] = _FREE
        self._pairs[pair.size_class].append(pair)

    def _unpair(self) -> bool:
        """Take the slot of a free pair of another size."""
        for pairs in self._pairs.values():
            if pairs:
                pair = pairs.pop()
                self._heap.give(pair.block, 1 << pair.size_class)
                self._slots.append(pair.slot)
                return True
        return False


_LIVE: "weakref.WeakSet[Core]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for core in list(_LIVE):
        core.forget()
    _LIVE.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
