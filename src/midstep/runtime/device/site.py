"""Where this rank sits: its row on the ground of one seating, its memory there, what it maps of others."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional, Tuple

from ...mailbox import futex, ground
from ...mailbox.ground import Ground, Stand
from ...mailbox.lock import SharedLock
from ...mailbox.seat import Seating
from ..meeting import open_once
from ..splice.maps import view
from .pool import Memory, Pool
from .table import Spot

Seated = Callable[[], Optional[Seating]]


class Site:
    """One for each epoch, since then ranks may sit elsewhere."""

    def __init__(self, world: str, seat: Seating, me: int, memory: Memory) -> None:
        """Raises OSError."""
        self.seat, self.memory = seat, memory
        self.row = seat.ranks.index(me)
        self._nbytes = ground.nbytes(len(seat.ranks))
        path = os.path.join(ground.FOLDER, ground.name(world, seat.epoch, seat.device))
        base = open_once(path, self._nbytes, str(me), self._begin)
        self._ground = Ground(view(base, self._nbytes))
        self._lock = SharedLock(base + ground.LOCK_AT)
        self.change_at = base + ground.CHANGE_AT
        self._pool: Optional[Pool] = None
        self._mapped: Dict[Tuple[int, int, int], Tuple[Any, int]] = {}

    def _begin(self, base: int) -> None:
        SharedLock.begin(base + ground.LOCK_AT)
        Ground(view(base, self._nbytes)).begin(len(self.seat.ranks))

    @property
    def change(self) -> int:
        return self._ground.change

    @property
    def parting(self) -> bool:
        """Whether the ranks here are asked to let go of each other's memory."""
        return self._ground.parting

    @property
    def here(self) -> bool:
        """Whether this rank contributes."""
        return self._ground.stand(self.row) is Stand.HERE

    def arrive(self, seated: Seated) -> Optional[Pool]:
        """Be here, and answer where to put parts; None: not now. Memory shown before a parting is freed."""
        self._lock.acquire()
        try:
            stands = self._ground.stands()
            if self.parting:
                return None
            if self._pool is not None and stands[self.row] is Stand.HERE:
                return self._pool
            if Stand.PARTING in stands or Stand.SETTLED in stands:
                return None  # they have still to take what lies here
            if os.path.exists(ground.SIGN):
                return None  # this ground is newer than the question
            if seated() != self.seat:
                return None  # all have parted since it was looked at
            if self._pool is not None:
                self._pool.free()
            self._ground.arrive(self.row, os.getpid())
            generation = self._ground.generation(self.row)
            self._pool = Pool(self.memory, generation, lambda size, h: self._ground.add(self.row, size, h))
            return self._pool
        finally:
            self._lock.release()

    def tensor(self, row: int, spot: Spot, like: Any) -> Any:
        """A part, or a result, of the rank in a row, as a flat tensor of this one's type and length."""
        if row == self.row:
            assert self._pool is not None
            whole = self._pool.tensor(spot.segment)
        else:
            whole = self._mapping(row, spot)[0]
        return whole[spot.offset : spot.offset + like.nbytes].view(like.dtype)

    def begin_to_part(self) -> None:
        """Contribute nothing more."""
        self._take(Stand.PARTING)

    def all_are_parting(self) -> bool:
        """Whether nobody contributes any more."""
        return Stand.HERE not in self._ground.stands()

    def called_off(self) -> bool:
        """Stay, if the question was taken back and there is one who has not begun to part. Whether so."""
        if self.parting:
            return False
        self._lock.acquire()
        try:
            if self.all_are_parting():
                return False
            self._ground.take(self.row, Stand.HERE)
        finally:
            self._lock.release()
        self._wake()
        return True

    def settled(self) -> None:
        """This rank has all that it needs of others."""
        self._take(Stand.SETTLED)

    def all_are_settled(self) -> bool:
        """Whether nobody needs anything of this rank any more."""
        stands = self._ground.stands()
        return Stand.HERE not in stands and Stand.PARTING not in stands

    def part(self) -> None:
        """Unmap what is others', and say so."""
        self._unmap()
        self.memory.hide()
        self._take(Stand.PARTED)

    def leave(self) -> None:
        """For good."""
        self._unmap()
        self.memory.hide()
        if self._pool is not None:
            self._pool.free()
            self._pool = None

    def _mapping(self, row: int, spot: Spot) -> Tuple[Any, int]:
        key = (row, spot.generation, spot.segment)
        if key not in self._mapped:
            nbytes, handle = self._ground.segment(row, spot.segment)
            self._mapped[key] = self.memory.open(handle, nbytes)
        return self._mapped[key]

    def _take(self, stand: Stand) -> None:
        self._lock.acquire()
        self._ground.take(self.row, stand)
        self._lock.release()
        self._wake()

    def _wake(self) -> None:
        self._ground.changed()
        futex.wake(self.change_at)

    def _unmap(self) -> None:
        mapped, self._mapped = self._mapped, {}
        for _, address in mapped.values():
            self.memory.close(address)
