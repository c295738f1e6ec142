"""What a proxy says to a rank about its device, in the mailbox's header. Standard library only.

``LEASE_WORD`` is the gate: OFF (nobody else of the job is on the device, or nobody minds), HELD (this rank
may compute) or WITHHELD (another one does: results are not handed to the job's code meanwhile). The owner
answers through the post ring, with entries that name no slot: see ``note``. ``PULSE_WORD`` counts while a
proxy minds the gate; when it stands still, the gate is open. A seat is written under a sequence number that
is odd meanwhile.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, Optional, Tuple

from .layout import SLOTS, SLOTS_AT, MailboxMap

LEASE_WORD = 256 // 4
PULSE_WORD = 260 // 4
LOWERED_WORD = 264 // 4  # proxies': they have put the rank's threads behind all others
FEEDS_WORD = 324 // 4  # the owner's: it posts in chunks, and has to know when each is done

_NOTE = 1 << 31  # an entry of the post ring that names no slot
_WANT = 1 << 30
ANY = SLOTS
_ELSEWHERE = SLOTS + 1

_SEAT = struct.Struct("=IIQiI")  # sequence, unused, epoch, device, how many sharers; then their ranks
_SEAT_AT = 384
_MOST = (SLOTS_AT - _SEAT_AT - _SEAT.size) // 4


class Lease(enum.IntEnum):
    """What ``LEASE_WORD`` holds."""

    OFF = 0
    HELD = 1
    WITHHELD = 2
    HELD_QUIETLY = 3  # and nobody can make use of what it posts before it gives the lease up


class Seating(NamedTuple):
    """Who sits on this rank's device under an epoch. ``ranks`` are all ranks of the job that share it, in
    order, this one among them; of more than some 900 only the first."""

    epoch: int
    device: int
    ranks: Tuple[int, ...]


def note(slot: Optional[int], want: bool = False) -> int:
    """A ring entry: the owner goes to sleep until this slot (or ANY) has an outcome, or (None) for something
    that the proxy does not see; or, with ``want``, it has something to go on with and may not."""
    return _NOTE | (_WANT if want else 0) | (_ELSEWHERE if slot is None else slot)


def read_note(entry: int) -> Optional[Tuple[bool, Optional[int]]]:
    """``(want, slot)``, or None for an entry that names a slot."""
    if entry < _NOTE:
        return None
    slot = entry & (_WANT - 1)
    return bool(entry & _WANT), None if slot == _ELSEWHERE else slot


def write_seat(file: MailboxMap, seat: Seating) -> None:
    """By the proxy."""
    memory, ranks = file.memory, seat.ranks[:_MOST]
    sequence = _SEAT.unpack_from(memory, _SEAT_AT)[0] | 1
    _SEAT.pack_into(memory, _SEAT_AT, sequence, 0, seat.epoch, seat.device, len(ranks))
    struct.pack_into("=%di" % len(ranks), memory, _SEAT_AT + _SEAT.size, *ranks)
    struct.pack_into("=I", memory, _SEAT_AT, (sequence + 1) & 0xFFFFFFFF)


def read_seat(file: MailboxMap) -> Optional[Seating]:
    """By the owner; None before any proxy has said it, or while one does."""
    memory = file.memory
    sequence, _, epoch, device, count = _SEAT.unpack_from(memory, _SEAT_AT)
    if sequence == 0 or sequence % 2 or count > _MOST:
        return None
    ranks = struct.unpack_from("=%di" % count, memory, _SEAT_AT + _SEAT.size)
    if _SEAT.unpack_from(memory, _SEAT_AT)[0] != sequence:
        return None
    return Seating(epoch, device, ranks)
