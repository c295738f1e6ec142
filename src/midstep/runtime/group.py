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


# What C++ calls (DDP, functional collectives); the rest only Python does.
CALLED_BY_CPP = [
    "allgather",
    "allgather_into_tensor_coalesced",
    "allreduce",
    "allreduce_coalesced",
    "all_to_all_single",
    "alltoall_base",
    "barrier",
    "broadcast",
    "recv",
    "reduce_scatter",
    "reduce_scatter_tensor_coalesced",
    "send",
]


class OldTorchGroup(Group):
    """For a torch in which C++ cannot keep a Python handle alive."""


for _name in CALLED_BY_CPP:
    setattr(OldTorchGroup, _name, survives_in_cpp(getattr(Group, _name)))

group_class = Group if KEEPS_PYTHON_WORK else OldTorchGroup
