"""The contract between the torch-facing half of the runtime and whatever carries its operations.

Standard library only, Python 3.9 or newer: this module is imported inside the job's own interpreter.

Words: a *world* is one rendezvous (the job's own is ``env://``; a script that spawns its own processes makes
private ones, for example ``file:///tmp/x``); a *group* is an ordered list of ranks of one world; an
*operation* is posted by every member of a group under the same ``(gid, seq)``; a *buffer* is contiguous host
memory that belongs to the job.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Callable, Optional, Protocol, Sequence


class Kind(enum.IntEnum):
    """What an operation does. ``n`` is the group's size, ``me`` the member's rank in the group."""

    BARRIER = 1  # no buffers
    ALLREDUCE = 2  # src: count elements; dst: count elements
    REDUCE = 3  # as ALLREDUCE, dst at the root only
    BROADCAST = 4  # src at the root only; dst at every other member
    ALLGATHER = 5  # src: splits[me] bytes; dst: sum(splits) bytes, by rank
    GATHER = 6  # as ALLGATHER, dst at the root only
    SCATTER = 7  # src at the root only: sum(splits) bytes, by rank; dst: splits[me] bytes
    REDUCE_SCATTER = 8  # src: sum(splits) bytes, by rank; dst: splits[me] bytes, reduced
    ALLTOALL = 9  # src: sum(splits) bytes, by receiver; dst: sum(out_splits) bytes, by sender
    SEND = 10  # src; peer = receiver's rank in the group
    RECV = 11  # dst; peer = sender's rank in the group, or -1 for any; Ticket.peer says which it was


class ReduceOp(enum.IntEnum):
    """Reductions, always along the fixed binary tree over group ranks (DESIGN.md, idea 5)."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7
    PREMUL_SUM = 8


class DType(enum.IntEnum):
    """Element types as numbers that both sides agree on; names are torch's."""

    uint8 = 0
    int8 = 1
    int16 = 2
    int32 = 3
    int64 = 4
    float16 = 5
    bfloat16 = 6
    float32 = 7
    float64 = 8
    bool = 9
    complex64 = 10
    complex128 = 11
    float8_e4m3fn = 12
    float8_e5m2 = 13
    uint16 = 14
    uint32 = 15
    uint64 = 16
    complex32 = 17


@dataclass(frozen=True)
class Buffer:
    """Contiguous host memory. ``owner`` is kept alive until the operation is over."""

    address: int
    nbytes: int
    owner: object = None


@dataclass(frozen=True)
class Op:
    """One operation of one group. ``seq`` is assigned by the channel, in the order of posting."""

    kind: Kind
    gid: int
    dtype: DType = DType.uint8
    reduce: ReduceOp = ReduceOp.SUM
    root: int = 0
    peer: int = 0
    tag: int = 0
    scale: float = 1.0  # PREMUL_SUM's factor
    splits: Sequence[int] = ()  # bytes
    out_splits: Sequence[int] = ()  # bytes


class ChannelError(RuntimeError):
    """The operation cannot complete; the message says why and which ranks posted what."""


class ChannelTimeout(ChannelError):
    """The operation did not complete in the time its caller gave it."""


class Ticket(Protocol):
    """An operation under way."""

    peer: int  # RECV: the sender's rank in the group, once done

    def done(self) -> bool:
        """Whether the result is in ``dst`` (or the operation failed)."""
        ...

    def wait(self, timeout_s: Optional[float]) -> None:
        """Return when done; raises ChannelError, ChannelTimeout. ``None`` waits for ever."""
        ...

    def add_done_callback(self, fn: Callable[[], None]) -> None:
        """Call ``fn`` once, from any thread, when done (at once if it is)."""
        ...


class Channel(Protocol):
    """What carries operations and store requests. One per process; every method may be called from any
    thread."""

    def open_group(self, world: str, name: str, ranks: Sequence[int], me: int) -> int:
        """Declare a group (``ranks`` are ranks of ``world``, ``me`` an index into them) and return its gid,
        the same in every member: a hash of the arguments but ``me``."""
        ...

    def close_group(self, gid: int) -> None: ...

    def reserve(self, gid: int) -> int:
        """The number of the group's next collective, for one that may be posted later, or never. Every member
        reserves, or posts, in the same order."""
        ...

    def post(
        self, op: Op, src: Optional[Buffer], dst: Optional[Buffer], reserved: Optional[int] = None
    ) -> Ticket:
        """Post and return. ``src`` may be reused only when the ticket is done; ``src`` and ``dst`` may be the
        same. ``reserved``: under this number."""
        ...

    # The job's rendezvous store. Keys are already prefixed with their world.
    def store_set(self, key: str, value: bytes) -> None: ...
    def store_get(self, key: str, timeout_s: float) -> bytes:
        """Wait for the key; raises ChannelTimeout naming the key."""
        ...

    def store_add(self, key: str, amount: int) -> int: ...
    def store_compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes: ...
    def store_wait(self, keys: Sequence[str], timeout_s: float) -> None: ...
    def store_check(self, keys: Sequence[str]) -> bool: ...
    def store_delete(self, key: str) -> bool: ...
    def store_num_keys(self, prefix: str) -> int: ...
    def store_append(self, key: str, value: bytes) -> None: ...
    def close(self) -> None: ...
