"""Who shares this rank's device, and giving the device up while waiting for them.

A rank is told by its node's proxy, in its mailbox (``mailbox/seat.py``). Only ranks of one home can share
memory: each leaves a mark in the home's ``/dev/shm`` when it joins the job's world.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from ...mailbox.layout import DONE_WORD
from ...mailbox.seat import Seating

HOME_MEMORY = "/dev/shm"
PREFIX = "midstep-splice-"


class Sharers(NamedTuple):
    """The ranks of the job that may splice, in order; at least two, this one among them."""

    world: str
    epoch: int
    device: int
    me: int
    ranks: Tuple[int, ...]

    def folder(self) -> str:
        """Where they meet."""
        return _folder(self.world)


class _World(NamedTuple):
    name: str
    members: Tuple[int, ...]
    me: int


_world: Optional[_World] = None
_source: Optional[Callable[[], Optional[Seating]]] = None
_last: Tuple[Optional[Seating], Optional[Sharers]] = (None, None)
_lease: Any = None  # the mailbox's gate, since this process joined a world of the job


def use(source: Optional[Callable[[], Optional[Seating]]]) -> None:
    """Ask this for the seating, not the mailbox (tests do)."""
    global _source, _last, _lease
    _source, _last, _lease = source, (None, None), None


def alone() -> bool:
    """Whether nobody takes turns with this rank on its device: one look, for it is asked before every
    step."""
    return _lease is not None and not _lease.shared


def joined(name: str, members: Tuple[int, ...], me: int) -> None:
    """This process has become member ``me`` of a world of the job; ``members`` are ranks of the job."""
    global _world, _last, _lease
    _world, _last = _World(name, members, members[me]), (None, None)
    _lease = _gate() if _source is None else None
    try:
        folder = _folder(name)
        os.makedirs(folder, exist_ok=True)
        with open(_mark(folder, members[me]), "w") as mark:
            mark.write("%d" % os.getpid())  # for people who wonder whose it is
        atexit.register(_leave, folder, members[me], os.getpid())
    except OSError:
        _world = None


def sharers() -> Optional[Sharers]:
    """Who may splice with this rank now; None: nobody."""
    global _last
    world = _world
    if world is None or os.environ.get("MIDSTEP_SPLICE") == "0":
        return None
    seat = _seat()
    if seat is None or len(seat.ranks) < 2:
        return None
    if seat == _last[0]:
        return _last[1]
    folder = _folder(world.name)
    here: List[int] = [rank for rank in seat.ranks if rank in world.members and _is_here(folder, rank)]
    found = None
    if world.me in here and len(here) > 1:
        found = Sharers(world.name, seat.epoch, seat.device, world.me, tuple(here))
    if len(here) == len(seat.ranks):  # else another one's mark may still come
        _last = (seat, found)
    return found


def outdated(sharers: Sharers) -> bool:
    """Whether the job has been resized since: those who know it already will not come to a board of then."""
    seat = _seat()
    return seat is not None and seat.epoch != sharers.epoch


def shed() -> None:
    """Give back to the system what memory the mailbox keeps free: its beginning, when every parameter goes
    through it once, has left much."""
    core = getattr(_gate() if _source is None else None, "core", None)
    if core is not None:
        core.shed()


class Yielding:
    """Around a wait for other ranks of the device: they need it to come."""

    def __init__(self) -> None:
        self._gate: Any = None
        self._core: Any = None
        if _source is None:
            self._gate = _gate()
            self._core = getattr(self._gate, "core", None)

    def before_sleep(self) -> None:
        """This rank is about to sleep."""
        if self._gate is not None:
            self._gate.give_up(None)

    def until_our_turn(self) -> None:
        """What was waited for is there: go on when the device is ours."""
        gate, core = self._gate, self._core
        while gate is not None and gate.shut:
            seen = core.words[DONE_WORD]
            if gate.shut:
                gate.linger(seen, 0.5)


def _seat() -> Optional[Seating]:
    if _source is not None:
        return _source()
    gate = _gate()
    return gate.seating() if gate is not None else None


def _gate() -> Any:
    from ..channels import the_channel

    return getattr(the_channel(), "gate", None)


def _in_child() -> None:
    """The parent's mailbox is not mapped in a forked child."""
    global _lease
    _lease = None


os.register_at_fork(after_in_child=_in_child)


def _leave(folder: str, me: int, owner: int) -> None:
    """The last one out removes the folder."""
    if os.getpid() != owner:
        return
    try:
        os.unlink(_mark(folder, me))
        os.rmdir(folder)
    except OSError:
        pass


def _folder(world: str) -> str:
    name = hashlib.blake2b(world.encode(), digest_size=8).hexdigest()
    return os.path.join(HOME_MEMORY, PREFIX + name)


def _mark(folder: str, rank: int) -> str:
    return os.path.join(folder, "rank-%d" % rank)


def _is_here(folder: str, rank: int) -> bool:
    return os.path.exists(_mark(folder, rank))
