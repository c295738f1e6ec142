"""The job's rendezvous store as a rank sees it: requests through the mailbox. Standard library only."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from . import futex
from .contract import ChannelError, ChannelTimeout
from .core import Core, Pair
from .gate import Gate
from .layout import (
    FLAG_CANCEL,
    FLAGS_WORD,
    KIND_STORE,
    LARGEST_REQUEST_BYTES,
    SLOT_WORDS,
    State,
    out_offset,
)
from .patience import Patience
from .requests import Ask, pack

_REPLY_BYTES = 4096
_CHANGE_S = 300.0  # requests that need nobody but the proxy


class StoreClient:
    """Each call is one request with a number of its own, so a proxy may be replaced in the middle of any."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._core = core
        self._gate = gate
        self._outstanding: List[int] = []  # stamps, rising

    def store_set(self, key: str, value: bytes) -> None:
        self._ask(Ask.SET, [key.encode(), value], _CHANGE_S)

    def store_get(self, key: str, timeout_s: float) -> bytes:
        return self._ask(Ask.GET, [key.encode()], timeout_s)

    def store_add(self, key: str, amount: int) -> int:
        return int(self._ask(Ask.ADD, [key.encode(), b"%d" % amount], _CHANGE_S))

    def store_compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        return self._ask(Ask.COMPARE_SET, [key.encode(), expected, desired], _CHANGE_S)

    def store_wait(self, keys: Sequence[str], timeout_s: float) -> None:
        self._ask(Ask.WAIT, [key.encode() for key in keys], timeout_s)

    def store_check(self, keys: Sequence[str]) -> bool:
        return self._ask(Ask.CHECK, [key.encode() for key in keys], _CHANGE_S) == b"1"

    def store_delete(self, key: str) -> bool:
        return self._ask(Ask.DELETE, [key.encode()], _CHANGE_S) == b"1"

    def store_num_keys(self, prefix: str) -> int:
        return int(self._ask(Ask.COUNT, [prefix.encode()], _CHANGE_S))

    def store_append(self, key: str, value: bytes) -> None:
        self._ask(Ask.APPEND, [key.encode(), value], _CHANGE_S)

    def _ask(self, ask: Ask, parts: Sequence[bytes], timeout_s: float) -> bytes:
        request = pack(ask, parts)
        room = _REPLY_BYTES + (len(parts[1]) + len(parts[2]) if ask == Ask.COMPARE_SET else 0)
        reply, size = self._once(request, room, ask, parts, timeout_s)
        if size > room:  # cut off: read the value again, it is only ever larger than what a read returns
            reply, size = self._once(pack(Ask.GET, parts[:1]), size + _REPLY_BYTES, ask, parts, timeout_s)
        return reply

    def _once(
        self, request: bytes, room: int, ask: Ask, parts: Sequence[bytes], timeout_s: float
    ) -> Tuple[bytes, int]:
        core = self._core
        if len(request) + room > LARGEST_REQUEST_BYTES:
            raise ChannelError("a store value of %d bytes is too large" % max(len(request), room))
        pair, stamp = self._post(request, room)
        try:
            if not self._wait(pair, Patience(timeout_s)):
                raise ChannelTimeout(_late(ask, parts, timeout_s))
            if core.words[pair.word] == State.FAILED:
                raise ChannelError(core.file.text(pair.slot))
            size = core.result(pair)[1]
            start = pair.block + out_offset(len(request), 0)
            return bytes(core.file.view(start, min(size, room))), size
        finally:
            self._leave(pair, stamp)

    def _post(self, request: bytes, room: int) -> Tuple[Pair, int]:
        core = self._core
        out_at = out_offset(len(request), 0)
        with core.lock:
            pair = core.take(out_at + room)
            if pair is None:
                raise ChannelError("all slots of the mailbox are in use")
            stamp = core.stamp()
            self._outstanding.append(stamp)
            lowest = self._outstanding[0]
        body = (
            0,
            stamp,
            stamp,
            0,
            1,
            KIND_STORE,
            0,
            0,
            0,
            0,
            0,
            len(request),
            pair.block,
            len(request),
            room,
        )
        core.words[FLAGS_WORD + pair.slot * SLOT_WORDS] = 0
        core.fill(pair, (*body, 1.0, 0, 0, lowest, 0), (), ())
        core.file.view(pair.block, len(request))[:] = request
        core.push(pair)
        return pair, stamp

    def _wait(self, pair: Pair, patience: Patience) -> bool:
        core, gate, told = self._core, self._gate, False
        while True:
            seen = core.done_word()
            if core.words[pair.word] >= State.DONE:
                if not gate.shut:
                    return True
                gate.linger(seen, futex.SLICE_S)
                continue
            if not told:
                told = True
                gate.give_up(pair.slot)
            futex.wait(core.done_address, seen, patience.slice_s())
            if patience.over():
                return core.words[pair.word] >= State.DONE

    def _leave(self, pair: Pair, stamp: int) -> None:
        core = self._core
        with core.lock:
            self._outstanding.remove(stamp)
            if core.words[pair.word] < State.DONE:
                core.words[FLAGS_WORD + pair.slot * SLOT_WORDS] = FLAG_CANCEL
                core.ring(pair.slot)
            core.retire(pair)
        futex.wake(core.posted_address)


def _late(ask: Ask, parts: Sequence[bytes], timeout_s: Optional[float]) -> str:
    keys = parts if ask == Ask.WAIT else parts[:1]
    names = ", ".join(repr(key.decode("utf-8", "replace")) for key in keys)
    return "store %s: no answer in %.6g s for key %s" % (ask.name.lower(), timeout_s or 0.0, names)
