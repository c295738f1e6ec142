"""This rank's own device memory into which it puts what others are to read."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Protocol, Tuple

from .table import Spot

SEGMENT_BYTES = 256 << 20
_ALIGN = 512
Use = Tuple[int, int, Callable[[], bool]]  # offset, end, whether it is over


class Memory(Protocol):
    """Memory of one device: taken, and shown to other processes by handles of at most 64 bytes."""

    def allocate(self, nbytes: int) -> Tuple[Any, int, bytes]:
        """(tensor of bytes, its address, its handle). Raises MemoryError."""
        ...

    def free(self, address: int) -> None: ...
    def open(self, handle: bytes, nbytes: int) -> Tuple[Any, int]:
        """Another process's memory as (tensor of bytes, address here). Raises RuntimeError."""
        ...

    def close(self, address: int) -> None: ...
    def hide(self) -> None:
        """Nobody opens any more what was allocated up to now."""
        ...

    def mark(self, tensor: Any) -> Any:
        """A mark behind all work that the caller has queued on the tensor's device."""
        ...

    def passed(self, mark: Any) -> bool:
        """Whether that work is done."""
        ...

    def done_with(self, mark: Any) -> None:
        """A mark may be used again."""
        ...

    def after(self, mark: Any) -> None:
        """What is queued from now on (within ``queue``) comes after the mark."""
        ...

    def queue(self) -> Any:
        """A context whose work goes into a queue of ours."""
        ...

    def finish(self) -> None:
        """Wait for all work in our queue."""
        ...

    def until(self, mark: Any) -> None:
        """Wait for a mark."""
        ...

    def follow(self) -> Any:
        """What the caller queues from now on comes after all work in our queue; a mark behind that."""
        ...


@dataclass
class _Segment:
    number: int
    tensor: Any
    address: int
    nbytes: int
    used: List[Use] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]


class Pool:
    """Places in segments. ``show`` makes a segment known to the others and answers its number."""

    def __init__(self, memory: Memory, generation: int, show: Callable[[int, bytes], int]) -> None:
        self._memory = memory
        self._generation = generation
        self._show = show
        self._segments: List[_Segment] = []

    def take(self, nbytes: int, over: Callable[[], bool]) -> Spot:
        """A place, free again when ``over`` says so. Raises MemoryError, OverflowError."""
        need = -(-max(1, nbytes) // _ALIGN) * _ALIGN
        for segment in self._segments:
            offset = self._gap(segment, need)
            if offset is not None:
                break
        else:
            segment, offset = self._grow(need), 0
        insort(segment.used, (offset, offset + need, over), key=_offset)
        return Spot(self._generation, segment.number, offset)

    def tensor(self, segment: int) -> Any:
        """A segment's memory."""
        return next(s.tensor for s in self._segments if s.number == segment)

    def free(self) -> None:
        """Give all of it back; nobody maps it."""
        segments, self._segments = self._segments, []
        for segment in segments:
            self._memory.free(segment.address)

    def _gap(self, segment: _Segment, need: int) -> Optional[int]:
        if need > segment.nbytes:
            return None
        segment.used = [use for use in segment.used if not use[2]()]
        at = 0
        for offset, end, _ in segment.used:
            if offset - at >= need:
                return at
            at = end
        return at if segment.nbytes - at >= need else None

    def _grow(self, need: int) -> _Segment:
        nbytes = -(-need // SEGMENT_BYTES) * SEGMENT_BYTES
        tensor, address, handle = self._memory.allocate(nbytes)
        segment = _Segment(self._show(nbytes, handle), tensor, address, nbytes)
        self._segments.append(segment)
        return segment


def _offset(use: Use) -> int:
    return use[0]
