"""What stopping, moving and resuming costs here, measured on the embedded fleet and written to
build/calibration.yaml, which `midstep sim --calibration` reads. The figure is the time of the costliest of
them, a resize over nodes.

A job of 4 DDP ranks (of 2 for the line between regions) on two nodes of two devices. What a step costs with
several ranks a device is taken from the steps before and after a resize.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks._fleet import BOUND_S, ENDED, fleet, submit
from benchmarks._moves import HEAVY, end, median_s, moves, pauses, rate, resizes, step_s, training
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient

RESULT = Path(__file__).resolve().parent.parent / "build" / "calibration.yaml"
START_ROUNDS = 3
STEPS, PACE_S = 20, 0.1


@benchmark("calibration", bar=25.0, unit="s", against="what the simulator takes where nothing was measured")
def calibration() -> list[float]:
    """Writes the file."""
    found = measure()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(yaml.safe_dump(found, sort_keys=False))
    print(RESULT.read_text(), file=sys.stderr)
    return [found["resize_across_s"]]


def measure() -> dict[str, Any]:
    """The fields of a calibration file."""
    found: dict[str, Any] = {"machine": machine()}
    with fleet(regions=2, nodes=2, devices=2) as client:
        for part in (_starts, _pauses, _within, _across, _regions, _splice):
            found |= part(client)
            print(f"  {found}", file=sys.stderr)
    return found


def machine() -> str:
    """In words."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {memory:.0f} GiB; embedded fleet, CPU devices"


def _starts(client: FleetClient) -> dict[str, float]:
    """A job's time beside its steps, as a straight line over 1, 2 and 4 ranks."""
    beside = {
        ranks: statistics.median(_beside_s(client, ranks) for _ in range(START_ROUNDS)) for ranks in (1, 2, 4)
    }
    line = statistics.linear_regression(list(beside), list(beside.values()))
    slope = max(0.0, line.slope)
    fixed = statistics.mean(beside.values()) - slope * statistics.mean(beside)
    print(f"  beside their steps: {beside}", file=sys.stderr)
    return {"start_s": round(max(0.0, fixed), 3), "start_device_s": round(slope, 3)}


def _beside_s(client: FleetClient, ranks: int) -> float:
    job = submit(client, "paced.py", str(STEPS), str(PACE_S), ranks=ranks, region="north")
    view = client.wait(job.job_id, lambda view: view.state in ENDED, BOUND_S)
    if view.state != "completed" or view.ended_s is None:
        raise RuntimeError(f"{job.job_id} is {view.state}: {view.failure}")
    return view.ended_s - view.submitted_s - STEPS * PACE_S


def _pauses(client: FleetClient) -> dict[str, float]:
    job = training(client, 2, "north")
    try:
        stood_s = pauses(client, job)
        kinds = {"suspend_s": "suspend", "resume_s": "resume"}
        found = {name: median_s(moves(client, job, kind)) for name, kind in kinds.items()}
        if stood_s:
            found["checkpoint_s"] = round(statistics.median(stood_s), 3)
        return found | {"state_bytes": float(client.job(job.job_id).snapshot_bytes) / 2}
    finally:
        end(client, job)


def _within(client: FleetClient) -> dict[str, float]:
    """Two ranks on two devices of a node, and on one."""
    job = training(client, 2, "north")
    try:
        resizes(client, job, (1, 2))
        return {"resize_within_s": median_s(moves(client, job, "resize"))}
    finally:
        end(client, job)


def _splice(client: FleetClient) -> dict[str, Any]:
    """What a step costs with two ranks on a device, against two devices: of a job that only computes."""
    job = training(client, 2, "north", HEAVY)
    try:
        apart_s = step_s(client, job)
        resizes(client, job, (1,), rounds=1)
        together_s = step_s(client, job)
        print(f"  steps: {apart_s * 1e3:.1f} ms apart, {together_s * 1e3:.1f} ms together", file=sys.stderr)
        return {"splice": {2: round(max(1.0, together_s / (2 * apart_s)), 4)}}
    finally:
        end(client, job)


def _across(client: FleetClient) -> dict[str, float]:
    """Four ranks on two nodes, and on one device of one."""
    job = training(client, 4, "north")
    try:
        resizes(client, job, (1, 4))
        done = moves(client, job, "resize")
        speed = rate(done)
        return {"resize_across_s": median_s(done)} | ({"node_bytes_per_s": round(speed)} if speed else {})
    finally:
        end(client, job)


def _regions(client: FleetClient) -> dict[str, float]:
    job = training(client, 2, "north")
    try:
        for region in ("south", "north"):
            client.migrate(job.job_id, region, False)
            client.wait(job.job_id, lambda view, to=region: _there(view, to), BOUND_S)
        speed = rate(moves(client, job, "migrate"))
        return {"region_bytes_per_s": round(speed)} if speed else {}
    finally:
        end(client, job)


def _there(view: Any, region: str) -> bool:
    return view.state in ENDED or (view.state == "running" and view.region == region)
