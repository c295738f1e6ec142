"""What only the mailbox has: its memory, forked children, processes that stop in the middle of anything."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle

import numpy as np
import pytest

from midstep.mailbox.channel import MailboxChannel
from midstep.mailbox.contract import ChannelError, DType, Kind, Op
from midstep.mailbox.core import Core
from midstep.mailbox.heap import LARGEST_BYTES, Heap
from midstep.mailbox.layout import SEGMENT_BYTES, SLOTS, Body, State
from midstep.mailbox.patience import Patience
from tests.proxy.programs import buffer


def test_blocks_never_cross_a_segment_and_are_used_again() -> None:
    core = Core(0, 1)
    heap = Heap(core.file)
    taken = [(heap.take(n), n) for n in (1, 300, 5000, 3 << 20, LARGEST_BYTES, 20 << 20, 1)]
    for offset, nbytes in taken:
        assert offset // SEGMENT_BYTES == (offset + nbytes - 1) // SEGMENT_BYTES
    ends = sorted((offset, offset + nbytes) for offset, nbytes in taken)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    heap.give(*taken[3])
    assert heap.take(2_900_000) == taken[3][0]
    with pytest.raises(MemoryError, match="the largest has"):
        heap.take(LARGEST_BYTES + 1)


def test_a_slot_is_used_again_only_when_it_is_released() -> None:
    core = Core(0, 1)
    pair = core.take(100)
    assert pair is not None
    core.words[pair.word] = State.DONE
    core.retire(pair)
    other = core.take(100)
    assert other is not None and other.slot != pair.slot
    core.words[pair.word] = State.RELEASED
    assert core.take(100) == pair


def test_every_slot_in_use_is_no_error() -> None:
    core = Core(0, 1)
    pairs = [core.take(100) for _ in range(SLOTS)]
    assert all(pairs) and core.take(100) is None
    last = pairs[-1]
    assert last is not None
    core.words[last.word] = State.RELEASED
    core.retire(last)
    taken = core.take(5000)
    assert taken is not None and taken.slot == last.slot


def test_what_is_posted_can_be_read_back() -> None:
    channel = MailboxChannel(3, 4)
    gid = channel.open_group("env://", "g", [1, 3], 1)
    array = np.arange(6, dtype=np.float32)
    splits = (8, 16)
    channel.post(
        Op(Kind.REDUCE_SCATTER, gid, DType.float32, splits=splits), buffer(array), buffer(np.zeros(4, "f4"))
    )
    slot = next(s for s in range(SLOTS) if channel.core.file.body(s).kind == Kind.REDUCE_SCATTER)
    body = channel.core.file.body(slot)
    assert isinstance(body, Body) and (body.gid, body.seq, body.total, body.splits) == (gid, 0, 24, 2)
    assert bytes(channel.core.file.view(body.block, 24)) == array.tobytes()
    assert channel.core.file.state(slot) == State.POSTED


def mailboxes() -> int:
    """How many mailboxes this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += "midstep-mailbox" in os.readlink(f"/proc/self/fd/{name}")
    return found


def test_a_forked_child_does_not_touch_its_parents_mailbox() -> None:
    channel = MailboxChannel(0, 2)
    gid = channel.open_group("env://", "g", [0, 1], 0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = "posted"
        try:
            channel.post(Op(Kind.BARRIER, gid), None, None)
        except ChannelError as error:
            text = str(error)
        own = MailboxChannel(0, 2)
        os.write(write, pickle.dumps((text, mailboxes())))
        own.close()
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    text, count = pickle.loads(os.read(read, 10_000))
    assert "was forked" in text and count == 1
    channel.post(Op(Kind.BARRIER, gid), None, None)


def test_a_timeout_does_not_count_the_time_in_which_the_process_was_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    patience = Patience(10.0)
    slice_s = patience.slice_s()
    now[0] += 3600.0
    assert not patience.over()
    assert patience.left_s is not None and patience.left_s >= 10.0 - slice_s - 0.06
