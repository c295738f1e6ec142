"""What is in the zoo, and where it is run."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass

from tests.zoo.zoo import Seats, apart


@dataclass(frozen=True)
class Family:
    """Scripts of ``jobs/``; all of their cases run in one process per rank."""

    name: str
    words: tuple[str, ...] = ()  # for ``many.py``; none: the family's name is its script's
    needs: tuple[str, ...] = ()  # packages beside torch: the extra ``zoo``
    compiler: bool = False  # torch.compile's C++ kernels

    @property
    def arguments(self) -> tuple[str, ...]:
        """The script, and what to tell it."""
        return ("many", *self.words) if self.words else (self.name,)

    def missing(self) -> str | None:
        """Why it cannot run here, if so."""
        lacking = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if lacking:
            return f"{', '.join(lacking)} not installed: make zoo"
        if self.compiler and shutil.which("g++") is None:
            return "torch.compile needs a C++ compiler: no g++ on the path"
        return None


FAMILIES = [
    Family("ddp", ("ddp", "ddp_ways", "models")),
    Family("sharded"),
    Family("parallel"),
    Family("loose"),
    Family("stubborn", ("writes", "unlike", "lives", "outside")),
    Family("compiled", compiler=True),
    Family("hf_accelerate", needs=("accelerate",)),
    Family("hf_trainer", needs=("transformers", "accelerate")),
    Family("lightning_fit", needs=("lightning",)),
    Family("deep_speed", needs=("deepspeed",)),
]

TWO = apart([0], [1])
FOUR = apart([0, 1, 2, 3])
"""What the others are compared with: a device for each rank, one node, nothing shared."""

ACROSS = [apart([0, 1], [2, 3]), apart([0], [1, 2, 3]), apart([0, 2], [1, 3])]
SHARED = [
    Seats([[0, 1, 2, 3]]),
    Seats([[0, 1], [2, 3]]),
    Seats([[0, 1], [2], [3]]),
    Seats([[0, 3], [1, 2]]),
    Seats([[1, 3]], [[0], [2]]),
    Seats([[0, 1]], [[2, 3]]),
]
TOUR = [FOUR, SHARED[1], SHARED[4], SHARED[0], ACROSS[2], SHARED[2]]

# What `make test` runs, in one process per rank: what is cheap to start and covers what can go wrong most.
SMALL = (
    "ddp:adamw",
    "ddp:noisy-optimizer",
    "ddp:several-optimizers",
    "ddp_ways:grad-scaler",
    "models:batchnorm-own",
    "models:gan",
    "ddp_ways:hook-powersgd",
    "loose:join",
    "writes:written-once-through-data",
    "writes:written-by-c",
    "unlike:skipped-step",
    "lives:reloaded",
    "lives:new-optimizer-every-epoch",
    "lives:tied",
    "lives:resized",
    "unlike:talking-optimizer",
    "outside:waits-for-a-file",
    "outside:depends-on-getpid",
)
