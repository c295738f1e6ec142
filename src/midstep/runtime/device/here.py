"""This process's exchange: made when the first operation could go over the GPU."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import os
import threading
from typing import Any, Optional

import torch

from ..worlds import job_rank
from .exchange import Exchange

SWITCH = "MIDSTEP_DEVICE_EXCHANGE"  # 0: everything goes through the host
_lock = threading.Lock()
_exchange: Optional[Exchange] = None
_owner = 0


def exchange(channel: Any) -> Optional[Exchange]:
    """The exchange over this channel's seating; None where operations go through the host."""
    global _exchange, _owner
    gate = getattr(channel, "gate", None)
    if gate is None or os.environ.get(SWITCH) == "0":
        return None
    with _lock:
        if _exchange is None or _owner != os.getpid():
            if torch.cuda.device_count() != 1:  # ranks that share a GPU see it alone
                return None
            from .cuda import CudaMemory

            _exchange = Exchange(
                "job", job_rank(), CudaMemory(torch.cuda.current_device(), str(job_rank())), gate.seating
            )
            _owner = os.getpid()
        return _exchange


def leave(gid: int) -> None:
    """A group has ended."""
    if _exchange is not None and _owner == os.getpid():
        _exchange.close(gid)
