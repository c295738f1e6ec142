"""Replicas that share a device: their memory (proportional set sizes, summed) against what it has to be:
parameters and optimizer state once, gradients and 1.1 idle torch processes for each (`splice-memory`). The
model's activations are a few kilobytes. `python -m benchmarks.memory` prints it for 1, 2, 4 and 8 replicas.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.registry import benchmark
from midstep.agent.drivers import kernel
from tests.runtime.harness import Job, script

MILLIONS, STEPS = 25, 8
RANKS = (1, 2, 4, 8)


def replicas(ranks: int) -> list[dict[str, Any]]:
    """What each rank says of a job on one device."""
    kernel.personality(kernel.ADDR_NO_RANDOMIZE)  # as the agent starts ranks; they inherit it
    return asyncio.run(_replicas(ranks))


async def _replicas(ranks: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        async with Job(Path(folder), [list(range(ranks))]) as job:
            job.devices = dict.fromkeys(range(ranks), (0,))
            args = (MILLIONS, STEPS, "leased", "fused")
            return await job.run(script("spliced_memory.py"), *args, timeout_s=400)


def ratio(said: list[dict[str, Any]]) -> float:
    """Bytes used to bytes allowed."""
    memory, idle = said[0]["memory"], max(rank["idle"] for rank in said)
    each = memory["gradients"] + 1.1 * idle
    return sum(rank["pss"] for rank in said) / (memory["parameters"] + memory["optimizer"] + len(said) * each)


@benchmark(
    "splice-memory", bar=1.0, unit="x", against="P + O + 4 x (G + 1.1 idle processes), 25 M parameters, Adam"
)
def splice_memory() -> list[float]:
    return [ratio(replicas(4)) for _ in range(3)]


def main() -> None:
    """A line for each number of replicas."""
    for ranks in RANKS:
        said = replicas(ranks)
        mib = sum(rank["pss"] for rank in said) / 2**20
        steps = "+".join(str(rank["steps"]) for rank in said[:2])
        print(f"{ranks} replicas: {mib:6.0f} MiB, {ratio(said):.3f} of the bound; steps {steps}", flush=True)


if __name__ == "__main__":
    main()
