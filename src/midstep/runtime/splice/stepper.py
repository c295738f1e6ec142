"""When an optimizer is to be shared: after its state has settled, and again a while after sharing ended."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from bisect import bisect_right
from typing import Any, Callable, List, Optional, Set

from . import seating
from .board import Board, Left
from .counters import COUNTERS
from .domain import NEVER, Domain, Outcome
from .maps import foreign_allocator, private_areas
from .plan import Plan, Unfit, known, parameters, structure
from .seating import HOME_MEMORY, PREFIX, Sharers

FIRST_DELAY, LONGEST_DELAY = 4, 4096  # own steps after a doubt; four times more each time
_SHORT = 4  # a sharing of fewer steps was hardly worth it

_steppers: "weakref.WeakSet[Stepper]" = weakref.WeakSet()
_ordinals: List[int] = [0]


class Stepper:
    """One optimizer of this process. Every rank numbers its optimizers alike, or they are never shared."""

    def __init__(self) -> None:
        self.domain: Optional[Domain] = None
        self._old: List[Domain] = []  # over, but still mapped
        self._ordinal, _ordinals[0] = _ordinals[0], _ordinals[0] + 1
        self._lock = threading.Lock()
        self._sharers: Optional[Sharers] = None
        self._attempts = self._doubts = self._due = 0
        self._total = 0
        self._settled = False
        self._intervals = Intervals()
        _steppers.add(self)

    def step(self, optimizer: Any, make: Callable[[], Any], plain: Callable[[], bool]) -> Any:
        """Make a step, or let another rank make it; returns what the optimizer's own step returns. ``plain``:
        whether nobody watches what torch does."""
        self._total += 1
        if self.domain is None and not self._old and seating.alone():
            self._intervals.forget()
            return make()
        self._intervals.enter(time.monotonic())
        if not self._lock.acquire(blocking=False):
            return make()  # another thread steps it as well
        try:
            once = _Once(make)
            sharers = seating.sharers() if plain() else None
            if sharers is None and self.domain is None and not self._old:
                return make()
            try:
                if self._shared(optimizer, once, sharers):
                    return once.result
            except BaseException as error:
                domain = self.domain
                if once.begun or not isinstance(error, Exception) or (domain is not None and domain.failed):
                    if domain is not None and domain.reason:
                        self.domain = None
                        self._ended(domain)
                    raise
                self._give_up("%s: %s" % (type(error).__name__, error))
            return self._own(optimizer, once)
        finally:
            self._lock.release()

    def before_fork(self) -> None:
        """A child is about to hold what is mapped here."""
        domain = self.domain
        if domain is not None:
            domain.before_fork()

    def end(self) -> None:
        """The optimizer, or the process, ends."""
        domain, self.domain = self.domain, None
        for each in [*self._old, *([domain] if domain else [])]:
            each.drop(make_own=False)
        self._old = []

    def give_way(self, addresses: Set[int]) -> None:
        """Another optimizer is to share these tensors."""
        domain = self.domain
        if domain is not None and any(piece.address in addresses for piece in domain.plan.shared):
            domain.leave(Left.GONE)

    def _shared(self, optimizer: Any, once: "_Once", sharers: Optional[Sharers]) -> bool:
        for _ in range(3):
            self._sit_with(sharers)
            if self.domain is None and sharers is not None:
                self._try(optimizer, sharers)
            if self.domain is not None:
                self.domain.announce(self._total, self._delay(), self._intervals.usual_s)
                if self.domain.step(optimizer, once) == Outcome.MADE:
                    return True
                domain, self.domain = self.domain, None
                self._ended(domain)
            elif sharers is None or not seating.outdated(sharers):
                return False
            if sharers is not None and seating.outdated(sharers):
                sharers = seating.sharers()  # some may wait there for this rank already, in this same step
        return False

    def _sit_with(self, sharers: Optional[Sharers]) -> None:
        if self.domain is not None and self.domain.sharers != sharers:
            self.domain.leave(Left.MOVED)
            COUNTERS.ended("the sharers or the epoch changed")
            self._old.append(self.domain)
            self.domain = None
        if sharers != self._sharers:
            self._sharers = sharers
            self._attempts = self._doubts = self._due = 0

    def _try(self, optimizer: Any, sharers: Sharers) -> None:
        name = "%d-%d-%d-%s-%d" % (
            sharers.epoch,
            sharers.device,
            self._ordinal,
            ".".join(map(str, sharers.ranks)),
            self._attempts,
        )
        path = os.path.join(sharers.folder(), name)
        due = self._settled and self._total >= self._due
        if not due and not os.path.exists(path + ".board"):
            return
        try:
            plan = Plan(optimizer) if self._settled else None
            if plan is None:
                raise Unfit("a rank's optimizer has not settled")
            _check_memory(plan)
        except Unfit as reason:
            self._refuse(path, sharers, str(reason))
            return
        addresses = {piece.address for piece in plan.shared}
        for other in list(_steppers):
            if other is not self:
                other.give_way(addresses)
        domain = Domain(sharers, name, plan)
        domain.announce(self._total, self._delay(), self._intervals.usual_s)
        if domain.form():
            self.domain = domain
            self._drop_old(make_own=False)
        else:
            self._ended(domain)

    def _refuse(self, path: str, sharers: Sharers, reason: str) -> None:
        board = Board(path + ".board", sharers.ranks, sharers.me)
        with board.locked():
            board.close(reason, self._total + self._delay())
        self._due = board.due
        self._count_doubt(board.text)
        board.leave(Left.GONE)
        board.drop()

    def _ended(self, domain: Domain) -> None:
        self._old.append(domain)
        self._due = domain.board.due
        if domain.left == Left.NO or domain.steps < _SHORT:
            self._count_doubt(domain.reason)
        else:
            self._doubts = 0
            self._attempts += 1
            COUNTERS.ended(domain.reason)

    def _count_doubt(self, reason: str) -> None:
        self._attempts += 1
        self._doubts += 1
        COUNTERS.ended(reason)

    def _delay(self) -> int:
        return min(LONGEST_DELAY, FIRST_DELAY * 4 ** min(self._doubts, 8))

    def _give_up(self, reason: str) -> None:
        self._due = NEVER
        if self.domain is not None:
            self.domain.leave(Left.GONE)
            self._old.append(self.domain)
            self.domain = None
        COUNTERS.ended(reason)

    def _own(self, optimizer: Any, once: "_Once") -> Any:
        self._drop_old(make_own=True)
        watched = not self._settled or self._total + 1 >= self._due
        before = _state(optimizer) if watched else None
        once()
        COUNTERS.own_steps += 1
        if watched:
            self._settled = before is not None and _state(optimizer) == before
        return once.result

    def _drop_old(self, make_own: bool) -> None:
        old, self._old = self._old, []
        for domain in old:
            try:
                domain.drop(make_own)
            except OSError as error:  # no memory for it: the mapping stays, and is as good
                COUNTERS.ended(str(error))


class Intervals:
    """How long it is from one step to the next. The smaller of the last two: there may be a pause in one."""

    def __init__(self) -> None:
        self.forget()

    @property
    def usual_s(self) -> float:
        """0 when it is not known."""
        return min(self._last_s, self._before_s)

    def enter(self, now_s: float) -> None:
        """A step begins; by the monotonic clock."""
        entered_s, self._entered_s = self._entered_s or now_s, now_s
        self._before_s, self._last_s = self._last_s, now_s - entered_s

    def forget(self) -> None:
        """Begin anew."""
        self._entered_s = self._last_s = self._before_s = 0.0


class _Once:
    """The optimizer's own step, which must not be made twice."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.begun = False
        self.result: Any = None

    def __call__(self) -> None:
        self.begun = True
        self.result = self._make()


def stepper_for(optimizer: Any) -> Optional[Stepper]:
    """Its stepper, if it is of a class that may be shared."""
    return Stepper() if known(optimizer) else None


def _end_all() -> None:
    """Before ``seating`` removes the folder: what is registered last is called first."""
    for stepper in list(_steppers):
        stepper.end()


atexit.register(_end_all)


def before_fork() -> None:
    """Have no rank write what a child of this one maps."""
    for stepper in list(_steppers):
        stepper.before_fork()


def _state(optimizer: Any) -> Any:
    tensors = structure(optimizer)
    return tensors and (tensors, [p.grad._version for p in parameters(optimizer) if p.grad is not None])


def _check_memory(plan: Plan) -> None:
    """Only memory of this process alone may be mapped over. Raises Unfit."""
    if foreign_allocator():
        raise Unfit("memory is not handed out by the C library")
    areas = private_areas(os.path.join(HOME_MEMORY, PREFIX))
    starts = [start for start, _ in areas]
    for piece in plan.shared:
        place = bisect_right(starts, piece.address) - 1
        if place < 0 or piece.address + piece.nbytes > areas[place][1]:
            raise Unfit("a tensor lies in memory that others may see, or in a file")
