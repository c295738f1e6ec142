"""Coming back: from asking for a suspended job until its next step is done, against restarting the script
under torchrun from the checkpoint that it saved itself. The job: DDP on 2 ranks, 25 M parameters, Adam.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._fleet import BOUND_S, JOBS, fleet, log, submit, wait
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView

STEP_AT = re.compile(r"^step \d+ loss \S+ at (\S+)$", re.MULTILINE)
ARGUMENTS = ("--params", "large", "--optimizer", "adam", "--print-steps")
ROUNDS = 5


@benchmark(
    "resume-to-step", bar=0.25, unit="x", against="restart under torchrun from the script's torch.save"
)
def resume_to_step() -> list[float]:
    """Ratios of the two, in turns."""
    with tempfile.TemporaryDirectory() as folder, fleet() as client:
        checkpoint = Path(folder) / "checkpoint.pt"
        with _torchrun(checkpoint, steps=3) as first:
            first.wait(BOUND_S)
        job = submit(client, "ddp.py", *ARGUMENTS, "--steps", "100000", ranks=2)
        _next_step_s(client, job, 0.0)
        return [_resumed_s(client, job) / _restarted_s(checkpoint) for _ in range(ROUNDS)]


def _resumed_s(client: FleetClient, job: JobView) -> float:
    client.suspend(job.job_id)
    wait(client, job, "suspended")
    asked = time.time()
    client.resume(job.job_id)
    return _next_step_s(client, job, asked) - asked


def _next_step_s(client: FleetClient, job: JobView, after: float) -> float:
    """Wall time of the first step done after ``after``."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        for at in STEP_AT.findall(log(client, job)):
            if float(at) > after:
                return float(at)
        time.sleep(0.1)
    raise RuntimeError(f"{job.job_id} does not go on")


def _restarted_s(checkpoint: Path) -> float:
    """Until the first step after loading is done; the job is then stopped."""
    started = time.time()
    with _torchrun(checkpoint, steps=100_000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := STEP_AT.match(line.strip()):
                return float(found.group(1)) - started
    raise RuntimeError("the script under torchrun ended without a step")


@contextmanager
def _torchrun(checkpoint: Path, steps: int) -> Iterator[subprocess.Popen[str]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "ddp.py", *ARGUMENTS, "--steps", str(steps), "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(
        command, cwd=JOBS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=BOUND_S)
