"""The process group that the takeover puts behind ``torch.distributed``."""

from __future__ import annotations

from typing import Sequence

from .collectives import Reductions
from .gathers import Gathers
from .tensors import Tensor
from .work import KEEPS_PYTHON_WORK, survives_in_cpp


class Group(Reductions, Gathers):
    """All operations of ``torch.distributed`` over the mailbox."""

    def allgather_uneven(self, parts: Sequence[Tensor], tensor: Tensor) -> None:
        """Gather tensors whose sizes differ between members, and wait."""
        self._allgather(parts, tensor).wait()


RETURN_WORK = [
    "allreduce",
    "allreduce_coalesced",
    "reduce",
    "broadcast",
    "reduce_scatter",
    "reduce_scatter_single",
    "_reduce_scatter_base",
    "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor_coalesced",
    "barrier",
    "allgather",
    "allgather_coalesced",
    "all_gather_single",
    "_allgather_base",
    "all_gather_single_coalesced",
    "allgather_into_tensor_coalesced",
    "gather",
    "scatter",
    "alltoall",
    "all_to_all_single",
    "alltoall_base",
    "send",
    "recv",
    "recv_anysource",
    "_end_coalescing",
    "end_coalescing",
]


class OldTorchGroup(Group):
    """For a torch in which C++ cannot keep a Python handle alive."""


for _name in RETURN_WORK:
    setattr(OldTorchGroup, _name, survives_in_cpp(getattr(Group, _name)))

group_class = Group if KEEPS_PYTHON_WORK else OldTorchGroup
