"""All-reduce between two ranks at the channel's level, against gloo in the same two processes, in turn.

`python -m benchmarks.collectives` prints a table of all sizes.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks._collectives import Times
from benchmarks.registry import benchmark
from tests.proxy.harness import Fleet

KB, MB = 1 << 10, 1 << 20
_SMALL = {64: 200, KB: 200, 8 * KB: 200, 64 * KB: 100}
_LARGE = {MB: 20, 16 * MB: 3, 64 * MB: 1, 256 * MB: 1}


@functools.cache
def _times(small: bool, rounds: int) -> Times:
    return asyncio.run(_run(_SMALL if small else _LARGE, rounds))


async def _run(plan: dict[int, int], rounds: int) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        async with Fleet(Path(folder), [[0, 1]]) as fleet:
            address = f"file://{folder}/gloo"
            results = await fleet.run("benchmarks._collectives:measure", address, plan, rounds, timeout_s=300)
            return results[0]


def _ratios(small: bool, nbytes: int) -> list[float]:
    ours, theirs = _times(small, 9)[nbytes]
    return [a / b for a, b in zip(ours, theirs)]


@benchmark("allreduce-small", bar=0.80, unit="x", against="gloo, 1 KB, two ranks")
def allreduce_small() -> list[float]:
    return _ratios(True, KB)


@benchmark("allreduce-64mb", bar=0.80, unit="x", against="gloo, 64 MB, two ranks")
def allreduce_64mb() -> list[float]:
    return _ratios(False, 64 * MB)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"{'bytes':>10} {'ours us':>10} {'gloo us':>10} {'ratio':>6} {'best':>6}")
    for small in (True, False):
        for nbytes, (ours, theirs) in _times(small, rounds).items():
            a, b = statistics.median(ours) * 1e6, statistics.median(theirs) * 1e6
            print(f"{nbytes:10} {a:10.1f} {b:10.1f} {a / b:6.2f} {min(ours) / min(theirs):6.2f}")


if __name__ == "__main__":
    main()
