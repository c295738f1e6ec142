"""One sharing of one optimizer: it begins, makes steps for all while nothing speaks against it, and ends.

A step is made for all only when every sharer has arrived at it and all of them found the same: settings,
gradients, and whatever of parameters and state is not mapped; and none has a page of its own. So each of them
would have computed, from the same bytes, what the last one to arrive now computes. Otherwise the board is
closed, and each makes its own step on what it has: mapped pages that it writes become its own.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import enum
import os
import time
from typing import Any, Callable, List, Optional

from ...mailbox.patience import Patience
from .arena import Arena, Differ
from .board import Board, Left, Phase, remove
from .counters import COUNTERS
from .examine import Examiner
from .failing import StepFailed, pack, unpack
from .plan import Plan
from .seating import Sharers, Yielding, outdated, shed

PATIENCE_S = 2.0
NEVER = 1 << 62
_INTERVALS = 4  # as many steps' time another rank may be late, where that is longer
_DIFFER = "the ranks' gradients or settings differ"
_CLOSE_UP_S = 0.05  # others are looked at this often while one sleeps


class Outcome(enum.IntEnum):
    """How a step went."""

    MADE = 0  # for all, by this rank or by another
    OWN = 1  # the domain is over: this rank is to make its own


class Domain:
    """This rank's part in it. ``reason`` and ``left`` say why it is over."""

    def __init__(self, sharers: Sharers, name: str, plan: Plan) -> None:
        """Come to the board. Raises OSError."""
        self.sharers = sharers
        self.plan = plan
        self.path = os.path.join(sharers.folder(), name)
        self.board = Board(self.path + ".board", sharers.ranks, sharers.me)
        self.arena: Optional[Arena] = None
        self.reason = ""
        self.left = Left.NO
        self.steps = 0
        self.inside = False  # arrived at a step
        self.failed = False  # another rank's step for this one has; what is raised is the job's
        self._now = self._later = 0  # this rank's count of steps; that at which to try again
        self._sizes = (0, 0)
        self._remap = self._moved = False
        self._patience_s = PATIENCE_S
        self._yielding = Yielding()
        self._examiner = Examiner(plan)
        self._owner = os.getpid()
        self._interrupted: Optional[BaseException] = None

    def announce(self, now: int, delay: int, interval_s: float) -> None:
        """Before anything else in a step: its number, how many to wait after a doubt, and how long it is from
        one to the next, without pauses."""
        self._now, self._later = now, now + delay
        self._patience_s = max(PATIENCE_S, _INTERVALS * interval_s)

    # Beginning.

    def form(self) -> bool:
        """Fill the arena, or compare with it and map it; False: the domain is over already."""
        board = self.board
        with board.locked():
            first = board.phase == Phase.EMPTY and not board.somebody_left()
            if first:
                board.enter(Phase.PUBLISHING)
        if not first and not self._wait(lambda: board.phase != Phase.PUBLISHING, "nobody filled the arena"):
            return self._over()
        if board.phase == Phase.CLOSED or board.somebody_left():
            return self._over()
        try:
            self.arena = Arena(self.path + ".arena", self.plan, first)
        except (Differ, OSError, RuntimeError) as error:
            self._close(str(error) or type(error).__name__)
            return self._over()
        with board.locked():
            board.join()
            if first and board.phase == Phase.PUBLISHING:
                board.enter(Phase.OPEN)
        shed()
        COUNTERS.formed += 1
        self._sizes = (self.arena.shared_bytes, self.arena.copied_bytes)
        COUNTERS.shared_bytes += self.arena.shared_bytes
        COUNTERS.copied_bytes += self.arena.copied_bytes
        return True

    # Every step.

    def step(self, optimizer: Any, make: Callable[[], Any]) -> Outcome:
        """Make one step, or take it from another rank."""
        self.inside = True
        try:
            return self._meet(optimizer, make)
        finally:
            self.inside = False

    def _meet(self, optimizer: Any, make: Callable[[], Any]) -> Outcome:
        digest, doubt = self._examiner.look(optimizer, self.arena)
        step = self.steps + 1
        board = self.board
        if not doubt and self.arena is not None and not self._examiner.agree(board, self.arena, step):
            doubt = _DIFFER
        with board.locked():
            if self._check_left() or board.phase == Phase.CLOSED:
                doubt = doubt or board.text
            if doubt:
                board.close(doubt, self._later)
            else:
                board.arrive(step, digest)
                if self._contradicted(step, digest):
                    board.close(_DIFFER, self._later)
            mine = board.phase == Phase.OPEN and self._complete(step)
            if mine:
                board.enter(Phase.EXECUTING)
        if mine:
            self._execute(optimizer, make, step)
        else:
            self._wait(lambda: board.done >= step, "a rank did not come to a step")
            if board.done < step:
                self._over()
                self._raise_interrupt()
                return Outcome.OWN
            self._follow()
        self.steps = step
        self._raise_interrupt()
        return Outcome.MADE

    def _raise_interrupt(self) -> None:
        error, self._interrupted = self._interrupted, None
        if error is not None:
            raise error

    def _contradicted(self, step: int, digest: bytes) -> bool:
        return any(arrived == step and other != digest for _, arrived, other in self.board.rows())

    def _complete(self, step: int) -> bool:
        return all(joined and arrived == step for joined, arrived, _ in self.board.rows())

    def _execute(self, optimizer: Any, make: Callable[[], Any], step: int) -> None:
        arena, board = self.arena, self.board
        assert arena is not None
        began_s = time.monotonic()
        before, touched = self.plan.versions(), False
        try:
            arena.begin()
            try:
                make()
            finally:
                arena.end()
                touched = self._note(arena, before)
            if not self.plan.in_place(optimizer):
                raise StepFailed("the optimizer's step has exchanged tensors of its state")
        except BaseException as error:
            COUNTERS.executed_steps += touched
            with board.locked():
                board.close("!" + pack(error) if touched else "a step raised %r" % error, self._later)
            self._over(raising=False)
            raise
        with board.locked():
            board.finish(step)
            self._check_left()
        COUNTERS.executed_steps += 1
        COUNTERS.execute_s += time.monotonic() - began_s
        self._after()

    def _note(self, arena: Arena, before: List[int]) -> bool:
        """Write down how often each tensor was written; whether any was."""
        notes = bytes([min(255, new - old) for old, new in zip(before, self.plan.versions())])
        arena.notes()[:] = notes
        return any(notes)

    def _follow(self) -> None:
        """Be where the rank is that made the step."""
        arena = self.arena
        assert arena is not None
        arena.take()
        self.plan.count_up(bytes(arena.notes()))
        COUNTERS.followed_steps += 1
        self._after()

    def _after(self) -> None:
        """What was copied for a child forked meanwhile is older than the step."""
        if self._remap and self.arena is not None:
            self._remap = False
            self.arena.remap()

    # Waiting.

    def _wait(self, there: Callable[[], bool], otherwise: str) -> bool:
        """Wait for it; closes the board after a while without it. Whether it is there."""
        began_s = time.monotonic()
        patience = Patience(self._patience_s)
        board = self.board
        slept = False
        while True:
            seen = board.change
            over = board.phase == Phase.CLOSED
            if there() or over:
                break
            try:
                if not slept:
                    slept = True
                    self._yielding.before_sleep()
                board.wait(seen, min(_CLOSE_UP_S, patience.slice_s()))
            except BaseException as error:  # of a signal's handler: the step is to be settled first
                self._interrupted = error
            if outdated(self.sharers):
                self.leave(Left.MOVED)
            if board.phase == Phase.EXECUTING:
                patience = Patience(self._patience_s)
            elif patience.over() or board.somebody_left():
                self._give_up(there, otherwise)
        if slept:
            self._yielding.until_our_turn()
        COUNTERS.wait_s += time.monotonic() - began_s
        return there()

    def _give_up(self, there: Callable[[], bool], otherwise: str) -> None:
        with self.board.locked():
            if not there() and self.board.phase != Phase.EXECUTING and not self._check_left():
                self.board.close(otherwise, self._later)

    def _close(self, reason: str) -> None:
        with self.board.locked():
            if self.board.phase != Phase.EXECUTING:
                self.board.close(reason, self._later)

    def _check_left(self) -> bool:
        """With the lock: close the board if somebody has left."""
        left = self.board.somebody_left()
        if left and self.board.phase != Phase.EXECUTING:
            due = {Left.FORKED: self._now if self.steps >= 4 else self._later, Left.GONE: NEVER}
            self.board.close("?%d a rank has left: %s" % (left, left.name.lower()), due.get(left, self._now))
        return bool(left)

    # Ending.

    def _over(self, raising: bool = True) -> bool:
        """Take down why it is over; always False. Raises what a step made for this rank has raised."""
        with self.board.locked():
            self._check_left()
            self.board.close("over", self._later)
        text = self.board.text
        if text.startswith("?"):
            self.left, text = Left(int(text[1])), text[3:]
        self.reason = text
        if text.startswith("!"):
            self.reason = "a step has failed"
            if raising:
                self.failed = True
                self._follow()
                raise unpack(text[1:])
        return False

    def before_fork(self) -> None:
        """A child will hold what this rank maps."""
        arena = self.arena
        if arena is None or os.getpid() != self._owner:
            return
        if self.inside:
            self._remap = True
            arena.copy_pages()
        else:
            self.board.leave(Left.FORKED)

    def leave(self, why: Left) -> None:
        """This rank will not arrive any more, so nobody will write the arena."""
        if os.getpid() == self._owner:
            self._moved = self._moved or why == Left.MOVED
            self.board.leave(why)

    def drop(self, make_own: bool) -> None:
        """Forget it; with ``make_own``, have all memory for this rank alone."""
        if os.getpid() != self._owner:
            return
        self.leave(Left.GONE)
        if self.arena is not None:
            COUNTERS.shared_bytes -= self._sizes[0]
            COUNTERS.copied_bytes -= self._sizes[1]
            if make_own:
                self.arena.make_own()
            self.arena.drop()
            self.arena = None
        self.plan.forget()
        if self.board.drop(self._moved or self.left == Left.MOVED):
            remove(self.path + ".arena")
