"""Runs torch's suite as a job of one rank, with a real proxy: the suite's ranks are processes inside it.

``python -m tests.conformance.run OUTCOMES [TEST ...]`` runs it; ``--plain`` before OUTCOMES: over gloo,
without Midstep; ``--record`` alone: over gloo, and keeps what passes and why others are skipped in
``gloo_baseline.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = Path(__file__).with_name("suite.py")
BASELINE = Path(__file__).with_name("gloo_baseline.json")
WORLD_SIZE = "4"  # with fewer ranks torch skips more
Outcomes = dict[str, dict[str, str]]


def read_outcomes(path: Path) -> Outcomes:
    """What ``suite.py`` wrote, by test."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["test"]: row for row in rows}


def run_plain(outcomes: Path, tests: Sequence[str] = (), **environment: str) -> Outcomes:
    """Over torch's own gloo."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MIDSTEP_RUN")
    }
    command = [sys.executable, str(SUITE), str(outcomes), *tests]
    with outcomes.with_suffix(".log").open("wb") as log:
        subprocess.run(command, env={**inherited, **environment}, stdout=log, stderr=log, check=False)
    return read_outcomes(outcomes)


async def run_under_midstep(
    folder: Path, tests: Sequence[str] = (), timeout_s: float = 1800.0, **environment: str
) -> Outcomes:
    """As a job: the runtime injected, every operation through a proxy. The log is ``folder/log0``."""
    from tests.runtime.harness import Job, RankFailed

    outcomes = folder / "outcomes.jsonl"
    async with Job(folder, [[0]]) as job:
        job.environment = {**environment, "WORLD_SIZE": WORLD_SIZE, "RANK": ""}
        try:
            await job.run(str(SUITE), outcomes, *tests, timeout_s=timeout_s)
        except RankFailed:
            pass  # the outcomes say which tests failed
    return read_outcomes(outcomes)


def record() -> None:
    """Write the baseline: what gloo passes on this build, and torch's own reasons for what it skips."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        found = run_plain(Path(folder) / "outcomes.jsonl")
    rows = sorted(found.values(), key=lambda row: row["test"])
    baseline = {
        "torch": torch.__version__,
        "world_size": WORLD_SIZE,
        "passed": [row["test"] for row in rows if row["outcome"] == "pass"],
        "skipped": {row["test"]: row["reason"] for row in rows if row["outcome"] == "skip"},
        "failed": {row["test"]: row["reason"][-500:] for row in rows if row["outcome"] == "fail"},
    }
    BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["--record"]:
        record()
        return
    plain = arguments[:1] == ["--plain"]
    path, *tests = arguments[plain:]
    if plain:
        found = run_plain(Path(path), tests)
    else:
        folder = Path(tempfile.mkdtemp(prefix="conformance-run-"))
        found = asyncio.run(run_under_midstep(folder, tests))
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in found.values()))
        print("log:", folder / "log0")
    print({kind: sum(row["outcome"] == kind for row in found.values()) for kind in ("pass", "fail", "skip")})


if __name__ == "__main__":
    main()
