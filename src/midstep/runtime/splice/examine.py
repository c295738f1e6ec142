"""What one rank finds when it comes to a step: a fingerprint that all sharers must have, or a doubt."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import time
from typing import Any, Optional, Tuple

import torch

from .arena import Arena
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
        self._gradients = Gradients(plan.params, plan.stepped)
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

    def _digest(self, optimizer: Any, arena: Arena) -> bytes:
        described, addresses = self._gradients.look()
        sizes = self._gradients.sizes
        COUNTERS.gradients_bytes = sum(sizes)
        if self._prints is None:
            self._prints = Fingerprint(COUNTERS.gradients_bytes)
        self._prints.feed_all(addresses, sizes)
        as_published = arena.as_published()  # else what is not mapped is to be alike in all ranks, at least
        if not as_published:
            self._prints.feed_all(*arena.unshared())
        more = (settings(optimizer), b"%d %d" % (torch.get_num_threads(), as_published), described)
        return self._prints.digest(b"\0".join(more))
