"""The list of benchmarks, and how one is added.

A benchmark is a function in a module of this folder that measures ONE figure several times and returns the
list of the runs; the figure is their median. It says beside it what the figure is held against:

    @benchmark("step-25m", bar=0.90, unit="x", against="torchrun with gloo, same script, same machine")
    def step_25m() -> list[float]: ...

`bar` is the worst value that still holds; `better="higher"` turns it around. Every module of the folder is
imported, so a new file is all it takes; `make bench ONLY=step-25m` runs it alone, and ONLY may be several
names or beginnings of names.

Where two figures come from one costly measurement, put that into a helper with `functools.cache` and register
two small functions that read from it. Compare like with like in the same minute: interleave our runs and the
rival's (ours, theirs, ours, theirs, ...) and return the ratios, for other work on the machine then hits both.
Start nothing that outlives the function (use `try/finally`), print progress to stderr if it takes long, and
raise `Skip("why")` where the machine lacks what is needed (no GPU, no CRIU): a skipped benchmark is reported
as such and neither holds nor fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]
Measure = Callable[[], list[float]]


class Skip(Exception):
    """This machine cannot run the benchmark; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    bar: float
    unit: str
    against: str
    better: Better
    measure: Measure

    def holds(self, value: float) -> bool:
        return value <= self.bar if self.better == "lower" else value >= self.bar


_registered: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, bar: float, unit: str, against: str, better: Better = "lower"
) -> Callable[[Measure], Measure]:
    """Register the function below under `name` (unique; else ValueError)."""

    def register(measure: Measure) -> Measure:
        if name in _registered:
            raise ValueError(f"two benchmarks are called {name!r}: {_registered[name].measure} and {measure}")
        _registered[name] = Benchmark(name, bar, unit, against, better, measure)
        return measure

    return register


def collect() -> list[Benchmark]:
    """Import every module of this folder; all benchmarks by name."""
    package = importlib.import_module("benchmarks")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        if not module.startswith("_"):
            importlib.import_module(f"benchmarks.{module}")
    return [_registered[name] for name in sorted(_registered)]


def choose(everything: Sequence[Benchmark], wanted: Sequence[str]) -> list[Benchmark]:
    """Those whose name is, or begins with, one of `wanted` (all if empty). ValueError for a word that fits
    none.
    """
    for word in wanted:
        if not any(item.name.startswith(word) for item in everything):
            names = ", ".join(item.name for item in everything) or "none yet"
            raise ValueError(f"no benchmark is called {word!r}; there are: {names}")
    exact = {item.name for item in everything} & set(wanted)
    prefixes = tuple(word for word in wanted if word not in exact)
    return [
        item
        for item in everything
        if not wanted or item.name in exact or (prefixes and item.name.startswith(prefixes))
    ]
