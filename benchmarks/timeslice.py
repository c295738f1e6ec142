"""Several ranks on one device: their step against as many times the step of the same script with world size 1
on that device (`timeslice`), and against plain time sharing of the same ranks by the operating system, for a
job that may not be spliced (`fallback`).

The device is one core, on which everything runs, the proxy too. Runs are made in turns, alone, shared, alone,
shared ..., each for about as long, and a shared one is compared with the mean of those before and after it:
a machine whose clock or neighbours change from minute to minute takes it from both. `python -m
benchmarks.timeslice [WAYS [MODEL ...]]` prints a table with the shares of the time.
"""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks._fleet import JOBS
from benchmarks.registry import benchmark
from midstep.proxy.report import ProxyStatus
from tests.runtime.harness import Job

STEPS = {"mlp": 24, "cnn": 24, "gpt": 24, "embedding": 30, "tiny": 45}
ROUNDS = 5
Run = tuple[float, list[ProxyStatus]]


def run(ranks: int, kind: str, leases: bool, *options: str, times: int = 1) -> Run:
    """The step in s, the ranks' median, and what the proxy said from time to time. ``times``: more steps."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        return asyncio.run(_run(ranks, kind, leases, STEPS[kind] * times, *options))
    finally:
        os.sched_setaffinity(0, allowed)


async def _run(ranks: int, kind: str, leases: bool, steps: int, *options: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        async with Job(Path(folder), [list(range(ranks))]) as job:
            job.devices = dict.fromkeys(range(ranks), (0,)) if leases else {}
            await job.start_ranks(str(JOBS / "slices.py"), kind, steps, *options)
            await job.start_proxies()
            said: list[ProxyStatus] = []
            while job.running():
                now = await job.proxies[0].status()
                if len(now.ranks) == ranks:
                    said.append(now)
                await asyncio.sleep(1.0)
            results = await job.results(300)
            return statistics.median(result[0] for result in results), said


@functools.cache
def timeslice(ways: int) -> dict[str, list[float]]:
    """By model: ratios, one a round."""
    ratios: dict[str, list[float]] = {kind: [] for kind in STEPS}
    for kind, found in ratios.items():
        before, _ = run(1, kind, leases=False, times=ways)
        for _ in range(ROUNDS):
            shared, said = run(ways, kind, leases=True)
            after, _ = run(1, kind, leases=False, times=ways)
            alone, before = (before + after) / 2, after
            found.append(shared / (ways * alone))
            _tell(f"{kind} {ways}-way {found[-1]:.3f} ({ways} x {alone * 1e3:.2f} ms)", said)
    return ratios


@functools.cache
def fallback() -> dict[str, list[float]]:
    """By model: ratios, one a round."""
    ratios: dict[str, list[float]] = {kind: [] for kind in STEPS}
    for kind, found in ratios.items():
        for _ in range(ROUNDS):
            plain, _ = run(2, kind, False, "--hand")
            turns, said = run(2, kind, True, "--hand")
            found.append(turns / plain)
            _tell(f"{kind} turns against time sharing {found[-1]:.3f} ({plain * 1e3:.2f} ms)", said)
    return ratios


def _tell(title: str, said: list[ProxyStatus]) -> None:
    print(f"  {title}; {shares(said)}", file=sys.stderr, flush=True)


def shares(said: list[ProxyStatus]) -> str:
    """Where the device's time went in the second half of a job, in words."""
    if len(said) < 2:
        return "too short to say where the time went"
    before, after = said[len(said) // 2], said[-1]

    def spent(name: str) -> float:
        return sum(getattr(r, name) for r in after.ranks) - sum(getattr(r, name) for r in before.ranks)

    whole = sum(spent(f"{name}_s") for name in ("computing", "waiting", "queueing", "loose")) / len(
        after.ranks
    )
    held, cpu, loose = spent("computing_s") / whole, spent("cpu_s") / whole, spent("loose_s") / whole
    reducing = (after.counters["executing_s"] - before.counters["executing_s"]) / whole
    return (
        f"leased {held:.1%} (ranks computing {cpu:.1%}), reduction {reducing:.1%}, hand-over and waiting "
        f"{max(0.0, 1 - cpu - reducing):.1%}; not in turns {loose:.1%}; "
        f"{spent('turns') / whole:.1f} turns a second"
    )


def _ranked(ratios: dict[str, list[float]], place: int) -> list[float]:
    """The rounds of the model whose median is at this place, the lowest first."""
    return sorted(ratios.values(), key=statistics.median)[place]


_ALONE = "R x the step of the same script with world size 1; "


@benchmark("timeslice-2way", bar=1.00, unit="x", against=_ALONE + "the third best of five models")
def timeslice_2way() -> list[float]:
    return _ranked(timeslice(2), 2)


@benchmark("timeslice-2way-worst", bar=1.03, unit="x", against=_ALONE + "the worst of five models")
def timeslice_2way_worst() -> list[float]:
    return _ranked(timeslice(2), -1)


@benchmark("timeslice-4way", bar=1.00, unit="x", against=_ALONE + "the third best of five models")
def timeslice_4way() -> list[float]:
    return _ranked(timeslice(4), 2)


@benchmark("timeslice-4way-worst", bar=1.03, unit="x", against=_ALONE + "the worst of five models")
def timeslice_4way_worst() -> list[float]:
    return _ranked(timeslice(4), -1)


@benchmark(
    "fallback", bar=1.05, unit="x", against="plain time sharing of the same 2 ranks; worst of five models"
)
def fallback_worst() -> list[float]:
    return _ranked(fallback(), -1)


def main() -> None:
    ways = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for kind in sys.argv[2:] or STEPS:
        alone, _ = run(1, kind, leases=False)
        plain, _ = run(ways, kind, leases=False)
        turns, said = run(ways, kind, leases=True)
        print(f"{kind:<10} {ways} x {alone * 1e3:6.2f} ms: {turns / ways / alone:.3f} in turns, ", end="")
        print(f"{plain / ways / alone:.3f} by time sharing; {shares(said)}", flush=True)


if __name__ == "__main__":
    main()
