"""Operations that move parts between members: gather, scatter, all-gather, all-to-all, send and receive."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from ..mailbox.contract import Kind
from .base import GroupBase
from .tensors import Checks, Tensor, byte_splits, dtype_of, packed, source, target, unpacked
from .work import OpWork


class Gathers(GroupBase):
    """The operations that copy and do not compute."""

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``outputs``: one list with a tensor for each member. Sizes may differ between members only for
        NCCL.
        """
        tensor = inputs if isinstance(inputs, Tensor) else Checks.single("allgather", inputs, "input ")
        parts: List[Tensor] = list(outputs if isinstance(outputs[0], Tensor) else outputs[0])
        if len(parts) != self._n:
            Checks.fail(
                "allgather",
                f"invalid output tensor list at index 0 (expected length {self._n}, got {len(parts)})",
            )
        Checks.dense("allgather", tensor)
        uneven = "nccl" in self.who.device_backends.values()
        Checks.alike("allgather", tensor, parts, sizes=not uneven)
        return self._allgather(parts, tensor, (tensor,))

    def _allgather(self, parts: Sequence[Tensor], tensor: Tensor, shown: Sequence[Tensor] = ()) -> OpWork:
        op = self._op(Kind.ALLGATHER, dtype_of(tensor), splits=tuple(part.nbytes for part in parts))
        dst, finish = unpacked(parts)
        return self._start(op, source(tensor), dst, list(parts), finish, shown)

    def allgather_coalesced(
        self, outputs: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor], opts: Any = None
    ) -> OpWork:
        """``outputs[member][i]`` receives ``inputs[i]`` of that member."""
        if len(outputs) != self._n:
            Checks.fail("allgather_coalesced", "output lists should be equal to world size")
        for i, tensor in enumerate(inputs):
            Checks.alike("allgather_coalesced", tensor, [row[i] for row in outputs])
        end = self._event(Kind.ALLGATHER, inputs)
        works = [self._allgather([row[i] for row in outputs], tensor) for i, tensor in enumerate(inputs)]
        return self._together(works, end)

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> OpWork:
        if output.numel() != input.numel() * self._n:
            raise ValueError(
                "output tensor size must be equal to world_size times input tensor size: "
                f"{output.numel()} elements for {self._n} times {input.numel()}"
            )
        if output.dtype != input.dtype:
            raise TypeError("output tensor must have the same type as input tensor")
        op = self._op(Kind.ALLGATHER, dtype_of(input), splits=(input.nbytes,) * self._n)
        dst, finish = target(output)
        return self._start(op, source(input), dst, [output], finish, (input,))

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None
    ) -> OpWork:
        return self._together([Gathers.all_gather_single(self, o, i) for o, i in zip(outputs, inputs)])

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``opts``: GatherOptions, or the root's rank. ``outputs`` at the root only: one list of tensors."""
        tensor = inputs if isinstance(inputs, Tensor) else Checks.single("gather", inputs, "input ")
        root = opts if isinstance(opts, int) else getattr(opts, "rootRank", 0)
        Checks.root("gather", root, self._n)
        Checks.dense("gather", tensor)
        op = self._op(Kind.GATHER, dtype_of(tensor), root=root, splits=(tensor.nbytes,) * self._n)
        parts = _parts("gather", outputs, self._me == root, self._n, "output")
        if self._me != root:
            return self._start(op, source(tensor), None, [], None, (tensor,))
        Checks.alike("gather", tensor, parts)
        dst, finish = unpacked(parts)
        return self._start(op, source(tensor), dst, parts, finish, (tensor,))

    def scatter(self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None) -> OpWork:
        """``opts``: ScatterOptions, or the root's rank. ``inputs`` at the root only: one list of tensors."""
        tensor = outputs if isinstance(outputs, Tensor) else Checks.single("scatter", outputs, "output ")
        root = opts if isinstance(opts, int) else getattr(opts, "rootRank", 0)
        Checks.root("scatter", root, self._n)
        Checks.dense("scatter", tensor)
        op = self._op(Kind.SCATTER, dtype_of(tensor), root=root, splits=(tensor.nbytes,) * self._n)
        parts = _parts("scatter", inputs, self._me == root, self._n, "input")
        Checks.alike("scatter", tensor, parts)
        dst, finish = target(tensor)
        return self._start(op, packed(parts) if parts else None, dst, [tensor], finish, parts or (tensor,))

    def alltoall(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], opts: Any = None) -> OpWork:
        if len(inputs) != self._n or len(outputs) != self._n:
            which, count = ("input", len(inputs)) if len(inputs) != self._n else ("output", len(outputs))
            Checks.fail("alltoall", f"{which} tensor list size {count} does not match world size {self._n}")
        Checks.alike("alltoall", inputs[0], [*inputs, *outputs], sizes=False)
        splits = tuple(part.nbytes for part in inputs)
        out_splits = tuple(part.nbytes for part in outputs)
        op = self._op(Kind.ALLTOALL, dtype_of(inputs[0]), splits=splits, out_splits=out_splits)
        dst, finish = unpacked(outputs)
        return self._start(op, packed(inputs), dst, list(outputs), finish, inputs)

    def all_to_all_single(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: Sequence[int] = (),
        input_split_sizes: Sequence[int] = (),
        opts: Any = None,
        timeout: Any = None,
    ) -> OpWork:
        """Split sizes are rows of dimension 0 for each member; empty: equal shares."""
        if output.dtype != input.dtype:
            raise TypeError("input and output tensors must have the same type")
        splits = byte_splits(input_split_sizes, input, self._n)
        out_splits = byte_splits(output_split_sizes, output, self._n)
        op = self._op(Kind.ALLTOALL, dtype_of(input), splits=splits, out_splits=out_splits)
        dst, finish = target(output)
        return self._start(op, source(input), dst, [output], finish, (input,))

    alltoall_base = all_to_all_single

    def send(self, tensors: Sequence[Tensor], peer: int, tag: int = 0) -> OpWork:
        tensor = _message("send", tensors, tag)
        op = self._op(Kind.SEND, dtype_of(tensor), peer=peer, tag=tag)
        return self._start(op, source(tensor), None, [tensor], None, (tensor,))

    def recv(self, tensors: Sequence[Tensor], peer: int, tag: int = 0) -> OpWork:
        """``peer``: -1 for any; the handle's ``source_rank`` says who it was."""
        tensor = _message("recv", tensors, tag)
        op = self._op(Kind.RECV, dtype_of(tensor), peer=peer, tag=tag)
        dst, finish = target(tensor)
        return self._start(op, None, dst, [tensor], finish, (tensor,))

    def recv_anysource(self, tensors: Sequence[Tensor], tag: int = 0) -> OpWork:
        return Gathers.recv(self, tensors, -1, tag)


def _parts(op: str, lists: Any, root: bool, size: int, which: str) -> List[Tensor]:
    """The root's list of tensors, one for each member; nothing elsewhere."""
    flat: Tuple[Tensor, ...] = tuple(lists if not lists or isinstance(lists[0], Tensor) else lists[0])
    if not root:
        if flat:
            Checks.fail(op, f"requires empty {which} on non-root")
    elif not lists:
        Checks.fail(op, f"requires a single-element {which} list containing a list with {size} tensors.")
    elif len(flat) != size:
        Checks.fail(
            op,
            f"Incorrect {which} list size {len(flat)}. {which.capitalize()} list size should be {size}, "
            "same as size of the process group.",
        )
    return list(flat)


def _message(op: str, tensors: Sequence[Tensor], tag: int) -> Tensor:
    if len(tensors) != 1:
        raise RuntimeError(f"ProcessGroupGloo::{op} takes a single tensor")
    if tag < 0:
        raise RuntimeError("Tag must be nonnegative")
    return tensors[0]
