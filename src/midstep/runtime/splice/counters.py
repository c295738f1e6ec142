"""What splicing has done in this process, for whoever shows it. Plain numbers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Dict


@dataclass
class Counters:
    """Bytes are of the optimizers that were stepped last; steps and seconds are sums."""

    parameters_bytes: int = 0
    optimizer_bytes: int = 0
    gradients_bytes: int = 0
    shared_bytes: int = 0  # of parameters and optimizer state: lie in memory that all sharers map
    copied_bytes: int = 0  # of large tensors that could not be mapped, and are copied at each step
    own_steps: int = 0  # made by this rank for itself
    executed_steps: int = 0  # made by this rank for all sharers
    followed_steps: int = 0  # made by another rank for this one
    formed: int = 0  # times that sharing began
    check_s: float = 0.0  # looking at pages, fingerprints
    wait_s: float = 0.0
    execute_s: float = 0.0
    last_reason: str = ""  # why sharing ended, or did not begin, the last time
    reasons: Dict[str, int] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]

    def ended(self, reason: str) -> None:
        """Sharing ended, or did not begin."""
        self.last_reason = reason
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if os.environ.get("MIDSTEP_DEBUG"):
            sys.stderr.write("midstep: splicing: %s\n" % reason)


COUNTERS = Counters()
