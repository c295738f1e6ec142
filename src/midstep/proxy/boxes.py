"""A rank's mailbox as the proxy sees it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from midstep.mailbox import futex
from midstep.mailbox.layout import (
    BODY,
    BODY_AT,
    DONE_WORD,
    FENCE_WORD,
    FLAGS_WORD,
    HEADER,
    HEAP_AT,
    MAGIC,
    POSTED_WORD,
    RESULT,
    RESULT_AT,
    RING,
    SEGMENT_BYTES,
    SLOT_BYTES,
    SLOT_WORDS,
    SLOTS,
    STATE_WORD,
    TEXT_AT,
    TEXT_BYTES,
    VERSION,
    Body,
    MailboxMap,
    State,
    splits_offset,
)

if TYPE_CHECKING:
    from midstep.proxy.groups import Group

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_DONE, _FAILED, _RELEASED = int(State.DONE), int(State.FAILED), int(State.RELEASED)
_PAGE = 4096
_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class NotAMailbox(ValueError):
    """The file is not one of ours, or belongs to another version or a newer epoch."""


class Box:
    """One open mailbox. ``tree`` is the job rank in whose process tree it is, ``owner`` its process (0: not
    known)."""

    def __init__(self, fd: int, tree: int, epoch: int, owner: int = 0) -> None:
        if os.fstat(fd).st_size < SEGMENT_BYTES:
            raise NotAMailbox("it has not its full size yet")
        self.fd = fd
        self.tree = tree
        self.owner = owner
        self.reachable = True  # as far as is known, the owner's memory
        self.on_wake: Callable[[Box], bool] | None = None  # whether the owner is to be woken (see seats.py)
        self.ops = self.bytes = 0  # carried out for it; bytes in and out
        self.reduced_bytes = 0  # what it gave to reductions
        self.carried_s = 0.0  # how long its operations took here
        self._file = self.file = MailboxMap(fd)
        self._memory = self._file.memory
        self.words = self._file.words
        self._ring = self._file.ring
        magic, version, self.pid, self.uid, self.rank, self.world_size = HEADER.unpack_from(self._memory, 0)
        if magic != MAGIC or version != VERSION:
            raise NotAMailbox(f"magic {magic:x}, version {version}: this proxy knows version {VERSION}")
        if self.words[FENCE_WORD] > epoch:
            raise NotAMailbox(f"a proxy of epoch {self.words[FENCE_WORD]} has it; this is epoch {epoch}")
        self.words[FENCE_WORD] = epoch
        self._arrays = [np.frombuffer(segment, np.uint8) for segment in self._file.segments]
        self.posted_address = self._file.posted_address
        self.done_address = self._file.done_address
        self.head = self.words[POSTED_WORD]  # the ring before this is found by scanning the table
        self.groups: dict[int, Group] = {}

    def posted(self) -> list[int]:
        """Slots that the ring names since the last call."""
        head, now = self.head, self.words[POSTED_WORD]
        if head == now:
            return []
        self.head = now
        count = (now - head) & 0xFFFFFFFF
        if count > RING:
            return self.slots_in(State.POSTED, State.CLOSED)
        ring = self._ring
        return [ring[(head + k) % RING] for k in range(count)]

    def slots_in(self, *states: State) -> list[int]:
        """All slots in one of these states, oldest post first."""
        table = np.frombuffer(self._memory, np.uint32)[
            STATE_WORD : STATE_WORD + SLOTS * SLOT_WORDS : SLOT_WORDS
        ]
        found = np.flatnonzero(np.isin(table, [int(state) for state in states])).tolist()
        return sorted(found, key=lambda slot: self.body(slot).stamp)

    def state(self, slot: int) -> int:
        return self.words[STATE_WORD + slot * SLOT_WORDS]

    def flags(self, slot: int) -> int:
        return self.words[FLAGS_WORD + slot * SLOT_WORDS]

    def body(self, slot: int) -> Body:
        return Body._make(BODY.unpack_from(self._memory, BODY_AT + slot * SLOT_BYTES))

    def result(self, slot: int) -> tuple[int, int]:
        """What was said beside the output: (peer, number)."""
        peer, _, number = RESULT.unpack_from(self._memory, RESULT_AT + slot * SLOT_BYTES)
        return peer, number

    def array(self, offset: int, nbytes: int) -> Bytes:
        """Part of a block, in place."""
        segment, start = divmod(offset, SEGMENT_BYTES)
        if segment >= len(self._arrays):
            self._file.follow()
            for mapped in self._file.segments[len(self._arrays) :]:
                self._arrays.append(np.frombuffer(mapped, np.uint8))
        return self._arrays[segment][start : start + nbytes]

    def address(self, offset: int) -> int:
        """Where a place in a block is mapped here, after ``array``."""
        return self._file.address(offset)

    def numbers(self, body: Body) -> tuple[list[int], list[int]]:
        """The splits that follow a slot's input."""
        count = body.splits + body.out_splits
        if not count:
            return [], []
        raw = self.array(body.block + splits_offset(body.in_len), 8 * count)
        values = list(struct.unpack(f"={count}Q", raw.tobytes()))
        return values[: body.splits], values[body.splits :]

    def answer(self, slot: int, peer: int, number: int) -> None:
        """Say something beside the output; before ``finish``."""
        RESULT.pack_into(self._memory, RESULT_AT + slot * SLOT_BYTES, peer, 0, number)

    def finish(self, slot: int) -> None:
        """The output is written."""
        self.words[STATE_WORD + slot * SLOT_WORDS] = _DONE

    def release(self, slot: int) -> None:
        """Nobody needs the slot any more but its owner."""
        self.words[STATE_WORD + slot * SLOT_WORDS] = _RELEASED

    def fail(self, slot: int, text: str) -> None:
        """The operation cannot complete."""
        data = text.encode("utf-8", "replace")[:TEXT_BYTES]
        start = TEXT_AT + slot * TEXT_BYTES
        self._memory[start : start + len(data)] = data
        RESULT.pack_into(self._memory, RESULT_AT + slot * SLOT_BYTES, -1, len(data), 0)
        self.words[STATE_WORD + slot * SLOT_WORDS] = _FAILED
        self.wake()

    def wake(self, urgent: bool = False) -> None:
        """Tell the owner that some slots have changed; later, if it is not its turn and it is not urgent."""
        if self.changed() or urgent:
            futex.wake(self.done_address)

    def changed(self) -> bool:
        """Note that some slots have changed; whether the owner is to be woken for it now."""
        words = self.words
        words[DONE_WORD] = (words[DONE_WORD] + 1) & 0xFFFFFFFF
        return self.on_wake is None or self.on_wake(self)

    def punch(self) -> int:
        """Free the pages of the heap that no slot uses; while the owner is frozen. Returns how many bytes
        were."""
        live: list[tuple[int, int]] = []
        for slot in self.slots_in(*(state for state in State if state != State.FREE)):
            body = self.body(slot)
            live.append((body.block, body.out_at() + body.out_len))
        before, size = os.fstat(self.fd).st_blocks, os.fstat(self.fd).st_size
        at = HEAP_AT
        for start, end in [*sorted(live), (size, size)]:
            first, last = (at + _PAGE - 1) // _PAGE * _PAGE, start // _PAGE * _PAGE
            if last > first:
                _fallocate(self.fd, _PUNCH, first, last - first)
            at = max(at, end)
        return (before - os.fstat(self.fd).st_blocks) * 512

    def close(self) -> None:
        """Forget the mailbox."""
        os.close(self.fd)


def wake_all(boxes: Iterable[Box]) -> None:
    """As ``Box.wake`` for each, with fewer calls."""
    futex.wake_all([box.done_address for box in boxes if box.changed()])


class Posted(NamedTuple):
    """One member's post of one chunk."""

    box: Box
    slot: int
    body: Body
    me: int

    @property
    def source(self) -> Bytes:
        return self.box.array(self.body.block, self.body.in_len)

    @property
    def out(self) -> Bytes:
        return self.box.array(self.body.out_at(), self.body.out_len)
