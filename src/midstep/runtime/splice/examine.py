"""What one rank finds when it comes to a step: a fingerprint that all sharers must have, or a doubt."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import time
from typing import Any, Optional, Tuple

import torch

from .arena import Arena
from .board import Board, Phase
from .counters import COUNTERS
from .fingerprint import Fingerprint
from .gradients import Gradients
from .maps import Watch
from .plan import Plan, Unfit, settings


class Examiner:
    """Of one plan. Raises OSError where the kernel does not show which pages were written."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._watch = Watch()
        self._gradients = Gradients(plan)
        self._prints: Optional[Fingerprint] = None

    def look(self, optimizer: Any, arena: Optional[Arena]) -> Tuple[bytes, str]:
        """(what this rank has found, what speaks against sharing or nothing)."""
        began_s = time.monotonic()
        try:
            if arena is None or not self._plan.in_place(optimizer):
                return b"", "the optimizer's tensors were exchanged"
            if self._watch.written(arena.areas) or not arena.untouched():
                return b"", "parameters or state were written outside of a step"
            return self._digest(optimizer, arena), ""
        except (Unfit, OSError) as error:
            return b"", str(error)
        finally:
            COUNTERS.check_s += time.monotonic() - began_s

    def agree(self, board: Board, arena: Arena, step: int) -> bool:
        """After ``look``: whether the gradients of small parameters are those of the rank that came first,
        which leaves its own in the arena. To compare costs less than a fingerprint."""
        began_s = time.monotonic()
        short = self._gradients.short
        with board.locked():
            first = board.phase == Phase.OPEN and arena.gradients_step != step
            if first:
                arena.put_gradients(step, *short)
        alike = first or arena.has_gradients(*short)
        COUNTERS.check_s += time.monotonic() - began_s
        return alike

    def _digest(self, optimizer: Any, arena: Arena) -> bytes:
        described = self._gradients.look()
        COUNTERS.gradients_bytes = self._gradients.nbytes
        if self._prints is None:
            self._prints = Fingerprint(sum(self._gradients.long[1]))
        self._prints.feed_all(*self._gradients.long)
        as_published = arena.as_published()  # else what is not mapped is to be alike in all ranks, at least
        if not as_published:
            self._prints.feed_all(*arena.unshared())
        more = (settings(optimizer), b"%d %d" % (torch.get_num_threads(), as_published), described)
        return self._prints.digest(b"\0".join(more))
