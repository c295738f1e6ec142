"""What moves cost on the embedded fleet, measured: for the calibration of the simulator."""

from __future__ import annotations

import re
import statistics
import time
from itertools import pairwise

from benchmarks._fleet import BOUND_S, log, submit, wait
from midstep.client.fleet import FleetClient
from midstep.client.types import CheckpointRule, JobView, MoveView

STEP_AT = re.compile(r"^step \d+ (?:loss \S+ )?at (\S+)$", re.MULTILINE)
PACED = ("paced.py", "1000000", "0.1")
HEAVY = ("ddp.py", "--params", "large", "--steps", "1000000", "--print-steps")
ROUNDS = 3


def training(client: FleetClient, ranks: int, region: str, job: tuple[str, ...] = PACED) -> JobView:
    """A DDP job that has done its first step, and is not saved by itself."""
    rule = CheckpointRule(off=True)
    view = submit(client, *job, ranks=ranks, checkpoints=rule, elastic=False, region=region)
    wait(client, view, "running")
    steps(client, view, 1)
    return view


def steps(client: FleetClient, job: JobView, count: int) -> list[float]:
    """When each was done; at least so many more than there are. RuntimeError: it does not go on."""
    there = len(STEP_AT.findall(log(client, job)))
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        found = STEP_AT.findall(log(client, job))
        if len(found) >= there + count:
            return [float(at) for at in found]
        time.sleep(0.2)
    raise RuntimeError(f"{job.job_id} does not go on")


def step_s(client: FleetClient, job: JobView, count: int = 20) -> float:
    """The median time of a step, now."""
    return statistics.median(after - before for before, after in pairwise(steps(client, job, count)[-count:]))


def moves(client: FleetClient, job: JobView, kind: str) -> list[MoveView]:
    """Of that kind, that went well; the first one, which warms the caches, left out where there are more."""
    found = [move for move in client.job(job.job_id).moves if move.kind == kind and move.ok]
    if not found:
        raise RuntimeError(f"{job.job_id} had no {kind}")
    return found[1:] or found


def pauses(client: FleetClient, job: JobView) -> list[float]:
    """Suspended and resumed, and saved; how long each of its checkpoints stopped it."""
    found: list[float] = []
    for _ in range(ROUNDS):
        client.suspend(job.job_id)
        wait(client, job, "suspended")
        client.resume(job.job_id)
        wait(client, job, "running")
        steps(client, job, 2)
        known = len(client.job(job.job_id).moves)
        client.checkpoint(job.job_id)

        def over(view: JobView, known: int = known) -> bool:
            new = [move for move in view.moves[known:] if move.kind == "checkpoint"]
            return any(move.message != "under way" for move in new)

        pause_s = client.wait(job.job_id, over, BOUND_S).checkpoints.pause_s
        found += [] if pause_s is None else [pause_s]
    return found


def resizes(client: FleetClient, job: JobView, sizes: tuple[int, ...], rounds: int = ROUNDS) -> None:
    """To each of these numbers of devices, and again."""
    for size in sizes * rounds:
        time.sleep(0.5)
        client.resize(job.job_id, size)

        def there(view: JobView, size: int = size) -> bool:
            return view.state == "running" and view.devices_now == size

        client.wait(job.job_id, there, BOUND_S)


def median_s(found: list[MoveView]) -> float:
    """How long they took."""
    return round(statistics.median(move.duration_s for move in found), 3)


def rate(found: list[MoveView]) -> float | None:
    """Bytes a second of what travelled between nodes or regions; None: nothing did."""
    sent = [s for move in found for s in move.steps if s.step.startswith("transfer") and s.nbytes]
    took_s = sum(step.duration_s for step in sent)
    return sum(step.nbytes for step in sent) / took_s if took_s else None


def end(client: FleetClient, job: JobView) -> None:
    """It is gone."""
    client.cancel(job.job_id)
    client.wait(job.job_id, lambda view: view.state in ("cancelled", "completed", "failed"), BOUND_S)
