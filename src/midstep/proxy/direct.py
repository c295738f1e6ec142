"""All-reduces whose buffers stay in the ranks' own memory (see ``mailbox/direct.py``).

A piece is read from every member, combined in the journal of the first member's slot, and written over all
inputs. The journal's word says which of both was under way when a proxy was killed. When all pieces are
there, the first member's slot is DONE, then the others are RELEASED, and it last.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from midstep.mailbox.contract import ReduceOp
from midstep.mailbox.layout import AGAIN, JOURNAL_AT, PIECE_BYTES, State, lanes_of
from midstep.proxy.arithmetic import kernel
from midstep.proxy.boxes import Posted, wake_all
from midstep.proxy.counters import Counters
from midstep.proxy.errors import Mismatch
from midstep.proxy.groups import Group, Operation
from midstep.proxy.memory import Helpers, Transfer
from midstep.proxy.tree import Range, reduce

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_TURN = 16  # pieces of a lane before the engine looks at its mailboxes again
_NOT_ALLOWED = (errno.EPERM, errno.EFAULT, errno.ENOSYS)


class Direct:
    """What is under way, oldest first. ``fail`` fails an operation."""

    def __init__(self, counters: Counters, fail: Callable[[Group, Operation, str], None]) -> None:
        self._counters = counters
        self._fail = fail
        self._helpers = Helpers()
        self._under_way: deque[_InPlace] = deque()

    def start(self, group: Group, op: Operation) -> None:
        """All members have posted the same (or, where one is DONE, were released before); ``advance`` goes on
        with it."""
        if any(post.box.state(post.slot) == State.DONE for post in op.arrived.values()):
            self._finish(group, op)  # an earlier proxy was killed when only the states were left
        else:
            self._under_way.append(_InPlace(group, op))

    def ask_again(self, group: Group, op: Operation) -> None:
        """Have those who posted in place post in chunks: not all did, or the members are on several nodes."""
        for me, post in list(op.arrived.items()):
            if not post.body.source:
                continue
            if _progress(post).any():
                text = "it is half done, and its members are no longer on one node"
                self._fail(group, op, f"{group.title()}, operation {op.seq}: {text}")
                return
            del op.arrived[me]
            post.box.answer(post.slot, AGAIN, 0)
            post.box.release(post.slot)
            post.box.wake(urgent=True)
        op.complete = False
        if not op.arrived and not op.frames:
            group.ops.pop((op.seq, op.chunk), None)

    def advance(self) -> bool:
        """Go on for some milliseconds; whether there was anything."""
        while self._under_way:
            work = self._under_way[0]
            if work.group.ops.get((work.op.seq, work.op.chunk)) is work.op:
                break
            self._under_way.popleft()  # it has failed meanwhile
        else:
            return False
        started = self._counters.clock()
        self._helpers.share(work.turns())
        self._counters.spent(work.posts, self._counters.clock() - started)
        if work.error is not None or work.finished():
            self._under_way.popleft()
            self._finish(work.group, work.op) if work.error is None else self._give_up(work, work.error)
        return True

    def _give_up(self, work: _InPlace, error: Exception) -> None:
        group, op = work.group, work.op
        if isinstance(error, OSError) and error.errno in _NOT_ALLOWED and not _progress(work.posts[0]).any():
            for post in work.posts:
                post.box.reachable = False
            allow(group)
            self.ask_again(group, op)
        else:
            self._fail(group, op, f"{group.title()}, operation {op.seq}: {error}")

    def _finish(self, group: Group, op: Operation) -> None:
        first, *others = [op.arrived[me] for me in group.local if me in op.arrived]
        for post in (first, *others):
            post.box.answer(post.slot, 0, 0)
        first.box.finish(first.slot)
        op.done = True
        del group.ops[op.seq, op.chunk]
        for post in (*others, first):
            post.box.release(post.slot)
        wake_all([post.box for post in (first, *others)])
        self._counters.carried((first, *others), self._counters.clock())


class _InPlace:
    """One operation: its pieces, lane by lane."""

    def __init__(self, group: Group, op: Operation) -> None:
        self.group = group
        self.op = op
        self.posts = [op.arrived[me] for me in group.local]
        self.error: Exception | None = None
        self._spans = [(post.box.owner, post.body.source) for post in self.posts]
        first = self.posts[0]
        body = first.body
        self._total = body.total
        self._kernel = kernel(body.dtype, body.reduce)
        self._divisor = group.size if body.reduce == ReduceOp.AVG else 1
        self._lanes = lanes_of(self._total)
        self._pieces = -(-self._total // PIECE_BYTES)
        self._words = _progress(first)
        self._journal = first.box.array(body.block + JOURNAL_AT, self._lanes * PIECE_BYTES)
        self._journal_at = first.box.address(body.block + JOURNAL_AT)

    def finished(self) -> bool:
        """Whether every piece is everywhere."""
        return all(self._piece(lane) >= self._pieces for lane in range(self._lanes))

    def turns(self) -> list[Callable[[], None]]:
        """The next turn of every lane that is not finished."""
        open_lanes = [lane for lane in range(self._lanes) if self._piece(lane) < self._pieces]
        return [lambda lane=lane: self._turn(lane) for lane in open_lanes]

    def _piece(self, lane: int) -> int:
        return lane + (int(self._words[lane]) >> 1) * self._lanes

    def _turn(self, lane: int) -> None:
        try:
            for _ in range(_TURN):
                if self._piece(lane) >= self._pieces or self.error is not None:
                    return
                self._step(lane)
        except (OSError, Mismatch, ValueError) as error:
            self.error = error

    def _step(self, lane: int) -> None:
        start = self._piece(lane) * PIECE_BYTES
        nbytes = min(PIECE_BYTES, self._total - start)
        mark = int(self._words[lane])
        at = self._journal_at + lane * PIECE_BYTES
        if not mark & 1:
            self._combine(self._journal[lane * PIECE_BYTES :][:nbytes], at, start)
            self._words[lane] = mark | 1
        transfer = _own.transfer
        for pid, address in self._spans:
            transfer.write(pid, address + start, at, nbytes)
        self._words[lane] = (mark | 1) + 1

    def _combine(self, journal: Bytes, at: int, start: int) -> None:
        """The reduced piece, in the journal; the first member's goes there from the beginning."""
        transfer, leaves, nbytes = _own.transfer, dict[Range, Bytes](), len(journal)
        for me, (pid, address) in enumerate(self._spans):
            piece, here = (journal, at) if me == 0 else _own.scratch(me, nbytes)
            transfer.read(pid, address + start, here, nbytes)
            leaves[me, me + 1] = piece
        reduce(self._kernel, leaves, (0, len(self._spans)), [journal], self._divisor)


class _Own(threading.local):
    """A thread's buffers."""

    def __init__(self) -> None:
        self.transfer = Transfer()
        self._buffers: dict[int, tuple[Bytes, int]] = {}

    def scratch(self, which: int, nbytes: int) -> tuple[Bytes, int]:
        """A buffer and its address."""
        found = self._buffers.get(which)
        if found is None:
            buffer = np.empty(PIECE_BYTES, np.uint8)
            found = self._buffers[which] = (buffer, buffer.ctypes.data)
        return found[0][:nbytes], found[1]


_own = _Own()


def allow(group: Group) -> None:
    """Tell a group's members whether their memory can stay in place: all are here, and it can be read."""
    members = list(group.members.values())
    allowed = group.placed and not group.remote and all(box.owner and box.reachable for box, _ in members)
    for box, slot in members:
        box.answer(slot, 0, group.gid if allowed else 0)


def is_in_place(posts: Iterable[Posted]) -> bool:
    """Whether any member's memory stays in place."""
    return any(post.body.source for post in posts)


def _progress(post: Posted) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return post.box.array(post.body.block, 8 * lanes_of(post.body.total)).view(np.uint64)
