"""What one rank finds when it comes to a step: a fingerprint that all sharers must have, or a doubt."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import time
from typing import Any, List, Optional, Tuple

import torch

from .arena import Arena
from .counters import COUNTERS
from .fingerprint import Fingerprint
from .maps import Watch
from .plan import Plan, Unfit, describe_gradient, gradients, settings


class Examiner:
    """Of one plan. Raises OSError where the kernel does not show which pages were written."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._watch = Watch()
        self._prints: Optional[Fingerprint] = None

    def look(self, optimizer: Any, arena: Optional[Arena]) -> Tuple[bytes, str]:
        """(what this rank has found, what speaks against sharing or nothing)."""
        began_s = time.monotonic()
        try:
            if arena is None or not self._plan.in_place(optimizer):
                return b"", "the optimizer's tensors were exchanged"
            if self._watch.written(arena.areas()) or not arena.untouched():
                return b"", "parameters or state were written outside of a step"
            return self._digest(optimizer, arena), ""
        except (Unfit, OSError) as error:
            return b"", str(error)
        finally:
            COUNTERS.check_s += time.monotonic() - began_s

    def _digest(self, optimizer: Any, arena: Arena) -> bytes:
        described: List[bytes] = [settings(optimizer), b"%d" % torch.get_num_threads()]
        places: List[Tuple[int, int]] = []
        for p, grad in gradients(optimizer):
            described.append(describe_gradient(p, grad))
            if grad is not None:
                if id(p) not in self._plan.stepped:
                    raise Unfit("a parameter has its first gradient")
                places.append((grad.data_ptr(), grad.numel() * grad.element_size()))
        COUNTERS.gradients_bytes = sum([nbytes for _, nbytes in places])
        places += arena.unshared()
        if self._prints is None:
            self._prints = Fingerprint(sum([nbytes for _, nbytes in places]))
        for address, nbytes in places:
            self._prints.feed(address, nbytes)
        return self._prints.digest(b"\0".join(described))
