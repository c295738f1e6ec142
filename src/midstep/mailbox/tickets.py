"""Operations under way in a rank. Whoever waits does the work of completing. Standard library only."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Callable, Deque, List, Optional, Tuple

from . import futex
from .contract import ChannelError, ChannelTimeout, Kind, Op
from .core import Core, Pair
from .cut import Cut
from .layout import AGAIN, State
from .patience import Patience
from .seat import LEASE_WORD

if TYPE_CHECKING:
    from .channel import MailboxChannel, Member

_HELD = 24  # chunks of all large operations whose memory is in use, those that wait for other nodes included
_DONE, _FAILED = int(State.DONE), int(State.FAILED)
WINDOW = 16  # chunks in flight of the oldest large operation: fewer leave a busy machine idle between them


class Finished:
    """A ticket of an operation that needed nobody else."""

    peer = -1

    def done(self) -> bool:
        return True

    def wait(self, timeout_s: Optional[float]) -> None:
        return None

    def add_done_callback(self, fn: Callable[[], None]) -> None:
        fn()


class Flight:
    """A ticket of an operation in a mailbox: what small and large ones share."""

    __slots__ = ("peer", "op", "keep", "finished", "error", "_channel", "_callbacks")

    def __init__(self, channel: "MailboxChannel", op: Op, keep: object) -> None:
        self.peer = op.peer
        self.op = op
        self.keep = keep  # the job's buffers, alive until the end
        self.finished = False
        self.error: Optional[str] = None
        self._channel = channel
        self._callbacks: Optional[List[Callable[[], None]]] = None

    @property
    def there(self) -> bool:
        """Whether the outcome is in the mailbox."""
        return self.finished

    def advance(self) -> bool:
        """Do what can be done now; whether anything was."""
        raise NotImplementedError

    def done(self) -> bool:
        if not self.finished:
            self.advance()
        return self.finished

    def add_done_callback(self, fn: Callable[[], None]) -> None:
        with self._channel.core.lock:
            if not self.finished:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(fn)
                fn = _nothing
        if fn is _nothing:
            self._channel.pump.watch(self)
        else:
            fn()

    def _finish(self, error: Optional[str]) -> None:
        core = self._channel.core
        with core.lock:
            self.error = error
            self.finished = True
            callbacks, self._callbacks = self._callbacks, None
        self.keep = None
        for fn in callbacks or ():
            fn()

    def _outcome(self) -> None:
        if self.error is not None:
            raise ChannelError(self.error)

    def _late(self, timeout_s: Optional[float]) -> ChannelTimeout:
        op = self.op
        return ChannelTimeout(
            "%s in group %x did not complete in %.6g s: "
            "not every rank has posted it (or no proxy serves this rank)"
            % (op.kind.name, op.gid, timeout_s or 0.0)
        )


def _nothing() -> None:
    return None


class Small(Flight):
    """An operation of one chunk."""

    __slots__ = ("pair", "_in_len", "_numbers", "_outs", "_claimed")

    def __init__(
        self, channel: "MailboxChannel", op: Op, keep: object, pair: Pair, in_len: int, cut: Cut
    ) -> None:
        Flight.__init__(self, channel, op, keep)
        self.pair = pair
        self._in_len = in_len
        self._numbers = len(cut.splits) + len(cut.out_splits)
        self._outs = cut.outs
        self._claimed = False

    @property
    def there(self) -> bool:
        return self.finished or self._channel.core.words[self.pair.word] >= _DONE

    def advance(self) -> bool:
        core = self._channel.core
        state = core.words[self.pair.word]
        if state < _DONE:
            return False
        with core.lock:
            if self._claimed:
                return False
            self._claimed = True
        error = core.file.text(self.pair.slot) if state == _FAILED else None
        if error is None and self._outs:
            core.copy_out(self.pair, self._in_len, self._numbers, self._outs)
        if self.op.kind == Kind.RECV:
            self.peer = core.result(self.pair)[0]
        with core.lock:
            self._channel.landed(self.op.gid, self.pair)
        self._finish(error)
        return True

    def wait(self, timeout_s: Optional[float]) -> None:
        core, gate = self._channel.core, self._channel.gate
        words, word = core.words, self.pair.word
        patience: Optional[Patience] = None
        while not self.finished:
            seen = core.done_word()
            if words[word] >= _DONE:
                if words[LEASE_WORD] and gate.shut and timeout_s != 0.0:
                    gate.linger(seen, futex.SLICE_S)
                elif not self.advance() and not self.finished:
                    time.sleep(0.00002)  # another thread is copying the result out
                continue
            if patience is None:
                patience = Patience(timeout_s)
                if timeout_s != 0.0:
                    gate.give_up(self.pair.slot)
            futex.wait(core.done_address, seen, patience.slice_s())
            if patience.over() and words[word] < _DONE:
                raise self._late(timeout_s)
        self._outcome()


class Large(Flight):
    """An operation of several chunks, or one whose first chunk says how to go on. Advanced under the pump's
    right."""

    __slots__ = ("_group", "_seq", "_cut", "_next", "_flying", "_match", "_whole")

    def __init__(
        self,
        channel: "MailboxChannel",
        op: Op,
        keep: object,
        group: "Member",
        seq: int,
        cut: Cut,
        whole: Optional[Pair] = None,
    ) -> None:
        Flight.__init__(self, channel, op, keep)
        self._whole = whole  # its slot while its memory stays in place (see direct.py)
        self._group = group
        self._seq = seq
        self._cut = cut
        self._next = 0
        self._match = 0
        self._flying: Deque[Tuple[Pair, int, int]] = collections.deque()

    def done(self) -> bool:
        if not self.finished:
            self._channel.pump.help_once()
        return self.finished

    def wait(self, timeout_s: Optional[float]) -> None:
        if not self.finished:
            patience = Patience(timeout_s)
            if not self._channel.pump.help(self, patience):
                raise self._late(timeout_s)
        self._outcome()

    @property
    def feeding(self) -> bool:
        """Whether chunks are to be posted or taken."""
        return self._whole is None and (bool(self._flying) or self._next < self._cut.chunks)

    @property
    def there(self) -> bool:
        if self._whole is not None:
            return self._channel.core.words[self._whole.word] >= _FAILED
        return self.finished or not self.feeding

    @property
    def whole_slot(self) -> Optional[int]:
        """The one slot of an operation whose memory stays in place."""
        return None if self._whole is None else self._whole.slot

    def advance(self, window: int = WINDOW) -> bool:
        core = self._channel.core
        moved = self._whole is not None
        if self._whole is not None and not self._land_whole(core, self._whole):
            return False
        while True:
            if self._flying and core.words[self._flying[0][0].word] >= _DONE:
                self._land(core)
            elif self.error is None and self._may_post(window) and self._post():
                pass
            else:
                break
            moved = True
        if not self.finished and (
            self.error is not None or (not self._flying and self._next >= self._cut.chunks)
        ):
            if self._channel.gate.shut:
                self._channel.gate.held_up = True
                return moved
            self._abandon(core)
            self._finish(self.error)
        return moved

    def _may_post(self, window: int) -> bool:
        if self._next >= self._cut.chunks or len(self._flying) >= window:
            return False
        if len(self._flying) + self._channel.core.unreleased() >= _HELD:
            return False  # their memory is still needed: the mailbox would grow
        return not (self._cut.asks and self._next == 1 and self._flying)

    def _post(self) -> bool:
        cut, chunk = self._cut, self._next
        posted = self._channel.post_chunk(self.op, self._group, self._seq, cut, chunk, self.peer, self._match)
        if posted is None:
            return False
        self._flying.append((posted[0], posted[1], chunk))
        self._next += 1
        return True

    def _land(self, core: Core) -> None:
        pair, in_len, chunk = self._flying.popleft()
        if core.words[pair.word] == _FAILED:
            self.error = core.file.text(pair.slot)
        else:
            cut = self._cut
            core.copy_out(pair, in_len, len(cut.splits) + len(cut.out_splits), cut.part(cut.outs, chunk))
            if chunk == 0 and self.op.kind >= Kind.ALLTOALL:
                self._learn(*core.result(pair))
        with core.lock:
            self._channel.landed(self.op.gid, pair)

    def _land_whole(self, core: Core, pair: Pair) -> bool:
        """Look whether it is over in place, or is to be posted in chunks after all."""
        state = core.words[pair.word]
        if state < _FAILED:
            return False
        again = state != _FAILED and core.result(pair)[0] == AGAIN
        if not again and self._channel.gate.shut:
            self._channel.gate.held_up = True
            return False
        if state == _FAILED:
            self.error = core.file.text(pair.slot)
        elif not again:
            self._next = self._cut.chunks
        self._whole = None
        with core.lock:
            self._channel.landed(self.op.gid, pair)
        return True

    def _learn(self, peer: int, number: int) -> None:
        if self.op.kind == Kind.RECV:
            self.peer, self._match = peer, number + 1
        elif self.op.kind == Kind.ALLTOALL:
            self._cut.chunks = max(self._cut.chunks, number)

    def _abandon(self, core: Core) -> None:
        with core.lock:
            while self._flying:
                self._channel.landed(self.op.gid, self._flying.popleft()[0])
