"""monitored_barrier: rank 0 says who did not come. Through the store, so that nothing stays posted."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, List

from ..mailbox.contract import ChannelTimeout
from .torch_types import torch_error

if TYPE_CHECKING:
    from .group import Group


def monitored_barrier(group: Group, timeout: timedelta, wait_all_ranks: bool) -> None:
    """Return when every member has called it.

    Raises RuntimeError at rank 0 naming the first member (all members with ``wait_all_ranks``) that did not
    come in time, and at the others when rank 0 did not confirm.
    """
    key = group.next_barrier_key()
    deadline = time.monotonic() + timeout.total_seconds()
    milliseconds = int(timeout.total_seconds() * 1000)
    if group.rank() != 0:
        _report(group, key, deadline, milliseconds)
        return
    missing: List[int] = []
    for rank in range(1, group.size()):
        if time.monotonic() >= deadline and not wait_all_ranks:
            raise _error(f"[Rank 0]: Rank 0 timed out in monitoredBarrier after {milliseconds} ms.")
        try:
            group.channel.store_get(f"{key}/{rank}", max(0.0, deadline - time.monotonic()))
        except ChannelTimeout:
            missing.append(rank)
            if not wait_all_ranks:
                break
    if missing:
        names = ", ".join(map(str, missing))
        word = "Ranks" if len(missing) > 1 else "Rank"
        raise _error(f"[Rank 0]: {word} {names} failed to pass monitoredBarrier in {milliseconds} ms")
    group.channel.store_set(f"{key}/all", b"1")


def _report(group: Group, key: str, deadline: float, milliseconds: int) -> None:
    group.channel.store_set(f"{key}/{group.rank()}", b"1")
    try:
        group.channel.store_get(f"{key}/all", max(0.0, deadline - time.monotonic()))
    except ChannelTimeout:
        raise _error(
            f"Rank {group.rank()} successfully reached monitoredBarrier, but received errors while waiting "
            f"for send/recv from rank 0. Please check rank 0 logs for faulty rank. Waited {milliseconds} ms."
        ) from None


def _error(message: str) -> RuntimeError:
    return torch_error("DistBackendError")(message)
