"""How the members of a world find each other in the job's store.

A place (``host:port``) may be used again, after its first users ended or died, so nothing under the place's
own name can be believed. The leader makes a fresh scope; every joiner shows a number of its own and is told
the scope under that number, so that neither can mistake the leftovers of an earlier world for the present
one.
"""

from __future__ import annotations

import os
import time
from typing import Optional

from ..mailbox.contract import Channel, ChannelTimeout

FIRST_PAUSE_S = 0.0005
LONGEST_PAUSE_S = 0.02
PATIENCE_S = 2.0  # then a joiner looks whether the leader is one that waits for nobody


def fresh_name() -> str:
    """A name that nobody else has; from the system, so that the job's random numbers stay as they are."""
    return os.urandom(8).hex()


def lead(channel: Channel, place: str, others: Optional[int], timeout_s: float) -> str:
    """Open the place; with ``others``, return when so many have joined. Raises ChannelTimeout."""
    scope = f"{place}#{fresh_name()}"
    channel.store_set(f"at/{place}", scope.encode())
    channel.store_set(f"at/{place}/waits", b"1" if others else b"0")
    if not others:
        return scope
    deadline = time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    answered = channel.store_add(f"at/{place}/answered", 0)
    while channel.store_add(f"{scope}!joined", 0) < others:
        came = channel.store_add(f"at/{place}/came", 0)
        for number in range(answered, came):
            _answer(channel, place, number + 1, scope)
        channel.store_add(f"at/{place}/answered", came - answered)
        answered = came
        if time.monotonic() > deadline:
            raise ChannelTimeout(f"{channel.store_add(f'{scope}!joined', 0)} of {others} others came")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
    return scope


def _answer(channel: Channel, place: str, number: int, scope: str) -> None:
    """Tell the joiner with this number the scope: if it died long ago, nobody reads it."""
    try:
        name = channel.store_get(f"at/{place}/came/{number}", 1.0).decode()
    except ChannelTimeout:
        return  # died between taking its number and showing its name
    channel.store_set(f"at/{place}/for/{name}", scope.encode())


def join(channel: Channel, place: str, others: Optional[int], timeout_s: float) -> str:
    """Find the scope that the leader of the place opened. Raises ChannelTimeout."""
    if others is None:
        return channel.store_get(f"at/{place}", timeout_s).decode()
    deadline = time.monotonic() + timeout_s
    name = fresh_name()
    number = channel.store_add(f"at/{place}/came", 1)
    channel.store_set(f"at/{place}/came/{number}", name.encode())
    scope = ""
    while not scope:
        left_s = deadline - time.monotonic()
        try:
            scope = channel.store_get(f"at/{place}/for/{name}", min(PATIENCE_S, left_s)).decode()
        except ChannelTimeout:
            if left_s <= PATIENCE_S:
                raise
            if (
                channel.store_check([f"at/{place}/waits"])
                and channel.store_get(f"at/{place}/waits", 1.0) == b"0"
            ):
                scope = channel.store_get(f"at/{place}", 1.0).decode()
            else:  # the leader may have given up on us, if we stood still between number and name
                number = channel.store_add(f"at/{place}/came", 1)
                channel.store_set(f"at/{place}/came/{number}", name.encode())
    channel.store_add(f"{scope}!joined", 1)
    return scope
