"""What a process group does with tensors of a GPU before it thinks of the host's memory."""

# pyright: reportUnknownMemberType=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Sequence

import torch

from .. import turns
from ..tensors import Tensor, buffer_of
from ..work import OpWork, done_work
from .arithmetic import defined
from .here import exchange
from .ticket import DeviceTicket

if TYPE_CHECKING:
    from ...mailbox.contract import Op
    from ..base import GroupBase


def on_device(group: "GroupBase", op: "Op", tensor: Tensor, shown: Sequence[Tensor]) -> Optional[OpWork]:
    """Begin an all-reduce of a tensor on a GPU; None: it goes through the host.

    Every member answers alike: it depends on the group, the element type and the operation.
    """
    size = group.size()
    if size == 1 and op.scale == 1.0:
        return done_work([tensor])
    if not group.who.one_home or not tensor.numel() or not defined(op.reduce, tensor.dtype):
        return None
    there = exchange(group.channel)
    if there is None:
        return None
    turns.on_device = True
    flat = tensor.detach().contiguous()
    channel: Any = group.channel

    def mail(ticket: DeviceTicket) -> None:
        staged = there.fetch(ticket)
        buffer = buffer_of(staged)
        ticket.mailed = channel.post(ticket.op, buffer, buffer, ticket.seq)
        ticket.land = lambda: there.store(ticket, staged)

    ticket = there.post(op.gid, group.who.known_ranks, group.rank(), op, channel.reserve(op.gid), flat, mail)
    finish = None if flat.data_ptr() == tensor.data_ptr() else lambda: _put_back(tensor, flat)
    return group._start(op, None, None, [tensor], finish, shown, ticket)  # pyright: ignore[reportPrivateUsage]


def _put_back(tensor: Tensor, flat: Tensor) -> None:
    tensor.detach().copy_(flat)
    torch.cuda.current_stream(tensor.device).synchronize()
