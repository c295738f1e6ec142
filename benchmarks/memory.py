"""Replicas that share a device: their memory (proportional set sizes, summed) against what it has to be:
parameters and optimizer state once, gradients and 1.1 idle torch processes for each (`splice-memory`). The
model's activations are a few kilobytes. A line for each number of replicas is printed, and their plot goes to
build/splice-memory.svg; `python -m benchmarks.memory` does that alone.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.registry import Skip, benchmark
from midstep.agent.drivers import kernel
from tests.runtime.harness import Job, script

MILLIONS, STEPS = 25, 8
RANKS = (1, 2, 4, 8)
PLOT = Path(__file__).resolve().parent.parent / "build" / "splice-memory.svg"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Point:
    """So many replicas on one device. Bytes; gradients and idle of one process."""

    replicas: int
    used: int
    parameters: int
    optimizer: int
    gradients: int
    idle: int
    steps: tuple[int, int, int]  # of rank 0: its own, made for all, made by another

    @property
    def bound(self) -> float:
        """P + O + A + R x (G + 1.1 x idle)."""
        return self.parameters + self.optimizer + self.replicas * (self.gradients + 1.1 * self.idle)

    @property
    def apart(self) -> int:
        """What they would need if each kept everything itself."""
        return self.replicas * (self.parameters + self.optimizer + self.gradients + self.idle)

    @property
    def ratio(self) -> float:
        """Bytes used to bytes allowed."""
        return self.used / self.bound

    def __str__(self) -> str:
        mib = (self.used, self.bound, self.parameters, self.optimizer, self.gradients, self.idle)
        used, bound, p, o, g, idle = (value / _MIB for value in mib)
        sum_ = f"{p:.0f} + {o:.0f} + 0 + {self.replicas} x ({g:.0f} + 1.1 x {idle:.0f})"
        own, made, followed = self.steps
        shared = f"{made + followed} of {own + made + followed} steps shared"
        return (
            f"{self.replicas} replicas: {used:6.0f} MiB, {self.ratio:.3f} of {sum_} = {bound:.0f}; {shared}"
        )


def measure(ranks: int) -> Point:
    """Train with so many replicas on one device."""
    kernel.personality(kernel.ADDR_NO_RANDOMIZE)  # as the agent starts ranks; they inherit it
    said = asyncio.run(_replicas(ranks))
    memory, steps = said[0]["memory"], said[0]["steps"]
    return Point(
        ranks,
        sum(rank["pss"] for rank in said),
        memory["parameters"],
        memory["optimizer"],
        memory["gradients"],
        max(rank["idle"] for rank in said),
        (steps[0], steps[1], steps[2]),
    )


async def _replicas(ranks: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        async with Job(Path(folder), [list(range(ranks))]) as job:
            job.devices = dict.fromkeys(range(ranks), (0,))
            args = (MILLIONS, STEPS, "leased", "fused")
            return await job.run(script("spliced_memory.py"), *args, timeout_s=400)


def plot(points: list[Point], path: Path) -> None:
    """Memory over replicas: measured, the bound, and without sharing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    replicas = [point.replicas for point in points]
    for name, style, values in (
        ("without sharing: R x (P + O + G + idle)", "s:", [point.apart for point in points]),
        ("bound: P + O + A + R x (G + 1.1 idle)", "^--", [point.bound for point in points]),
        ("measured", "o-", [point.used for point in points]),
    ):
        axes.plot(replicas, [value / _MIB for value in values], style, label=name)
    axes.set(
        xlabel="replicas R on one device",
        ylabel="memory of all of them, MiB",
        title=f"{MILLIONS} M parameters, Adam",
        xticks=replicas,
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


@benchmark(
    "splice-memory",
    bar=1.0,
    unit="x",
    against="P + O + A + R x (G + 1.1 idle torch processes), 25 M parameters, Adam; worst of R = 1, 2, 4, 8",
)
def splice_memory() -> list[float]:
    if not Path("/proc/self/smaps_rollup").exists():
        raise Skip("the kernel does not say how memory is shared (/proc/self/smaps_rollup)")
    points: list[Point] = []
    for ranks in RANKS:
        points.append(measure(ranks))
        print(points[-1], file=sys.stderr, flush=True)
    plot(points, PLOT)
    print(f"plot: {PLOT}", file=sys.stderr)
    return [max(point.ratio for point in points)]


if __name__ == "__main__":
    splice_memory()
