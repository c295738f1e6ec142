"""The engine's side of the connections: frames out, acknowledgements gathered, markers of a cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from midstep.proxy.counters import Counters
from midstep.proxy.peers import Link, Piece
from midstep.wire.proxy import FrameType, Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_MARKS = 8  # sent at once at the latest: slots, and their memory, wait for them


class Wires:
    """Implements match.Links. Used by the engine's thread only."""

    def __init__(self, counters: Counters) -> None:
        self.links: dict[int, Link] = {}
        self.marked: set[int] = set()  # nodes whose marker has come
        self.muted = False  # after our own marker nothing more is said
        self._marks: dict[tuple[int, FrameType], list[bytes]] = defaultdict(list)
        self._counters = counters

    @property
    def pending(self) -> bool:
        """Whether acknowledgements wait to be sent."""
        return bool(self._marks)

    def send(self, node: int, head: Head, pieces: Sequence[bytes | Bytes]) -> None:
        link = self.links.get(node)
        if link is None or self.muted:
            return
        out: list[Piece] = [head.pack()]
        out += [piece if isinstance(piece, bytes) else piece.data for piece in pieces if len(piece)]
        link.send(out)
        self._counters.sent_bytes += head.length

    def mark(self, node: int, kind: FrameType, mark: bytes) -> None:
        marks = self._marks[node, kind]
        marks.append(mark)
        if len(marks) >= _MARKS:
            self.flush()

    def flush(self) -> None:
        """Send the acknowledgements that were gathered."""
        if not self._marks:
            return
        gathered, self._marks = self._marks, defaultdict(list)
        for (node, kind), marks in gathered.items():
            data = b"".join(marks)
            self.send(node, Head(kind, length=len(data)), [data])

    def say_markers(self, nodes: Sequence[int]) -> None:
        """The cut: nothing of this epoch follows."""
        self.flush()
        self.muted = False
        for node in nodes:
            self.send(node, Head(FrameType.MARKER), [])
        self.muted = True

    def unmute(self) -> None:
        """The cut was given up."""
        self.muted = False
        self.marked.clear()
