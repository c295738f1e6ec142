"""Waking several at once: real threads that sleep without a limit."""

from __future__ import annotations

import ctypes
import threading

import pytest

from midstep.mailbox import futex
from midstep.substrate.local.processes import wait_for

SLEEP, NO_LIMIT = 0, None


@pytest.mark.parametrize("values", [(0,), (0, 7), (1, 2, 3), (5, 0xFFFFFFFF), (0xFFFFFFFF, 5, 0xFFFFFFFF)])
def test_all_are_woken(values: tuple[int, ...]) -> None:
    words = [ctypes.c_uint32(value) for value in values]
    addresses = [ctypes.addressof(word) for word in words]
    woken = [threading.Event() for _ in words]

    def sleep(which: int) -> None:
        call = futex._futex  # pyright: ignore[reportPrivateUsage]
        call(futex._SYS_FUTEX, addresses[which], SLEEP, values[which], NO_LIMIT, None, 0)  # pyright: ignore[reportPrivateUsage]
        woken[which].set()

    for which in range(len(words)):
        threading.Thread(target=sleep, args=(which,), daemon=True).start()

    def wake() -> bool:
        futex.wake_all(addresses)
        return all(event.is_set() for event in woken)

    assert wait_for(wake, 30.0, every_s=0.01)
    assert tuple(word.value for word in words) == values
