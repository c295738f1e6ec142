"""`midstep sim`: replay a trace in virtual time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from midstep.cli import options

Trace = Annotated[
    Path, typer.Argument(help="Jobs: .parquet or .csv (docs/replay-a-trace.md), or a public trace.")
]
FleetFile = Annotated[Path, typer.Option("--fleet", help="FLEET.yaml, or a public list of machines.")]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        help="midstep, fifo, sjf, srtf, las, easy, restart, static, queue. Repeat to compare.",
        show_default="fifo",
    ),
]
Placements = Annotated[
    list[str] | None,
    typer.Option(help="consolidate, random, best-fit, fgd. Repeat to compare.", show_default="consolidate"),
]
Loads = Annotated[
    list[float] | None,
    typer.Option(help="Submit so many times as fast. Repeat to compare.", show_default="1.0"),
]
Seeds = Annotated[
    list[int] | None, typer.Option(help="For all that is drawn. Repeat to compare.", show_default="0")
]
Page = Annotated[Path | None, typer.Option(help="Write a page with charts: OUT.html.", show_default=False)]
Tables = Annotated[
    Path | None,
    typer.Option(help="Write figures of runs and jobs there, as CSV and Parquet.", show_default=False),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Costs as measured: YAML (docs/replay-a-trace.md).", show_default="stated ones"),
]
Mtbf = Annotated[
    float | None,
    typer.Option(min=0.1, max=1e7, help="Nodes fail so often, on average.", show_default="no failures"),
]
Repair = Annotated[
    float | None, typer.Option(min=0.001, max=1e5, help="Until a node is back, on average.", show_default="4")
]
Shape = Annotated[
    float | None,
    typer.Option(
        min=0.2, max=5, help="Weibull shape of failures; 1: exponential.", show_default="1: exponential"
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs at the same time.", show_default="one a core")]


def sim(
    trace: Trace,
    fleet: FleetFile,
    policy: Policies = None,
    placement: Placements = None,
    load: Loads = None,
    seed: Seeds = None,
    report: Page = None,
    tables: Tables = None,
    cluster: Annotated[str | None, typer.Option(help="Only the jobs of this cluster.")] = None,
    group: Annotated[str | None, typer.Option(help="Only the jobs of this group.")] = None,
    from_s: Annotated[int | None, typer.Option("--from", help="Only jobs from this second on.")] = None,
    until_s: Annotated[int | None, typer.Option("--until", help="Only jobs before this second.")] = None,
    any_type: Annotated[bool, typer.Option("--any-type", help="Jobs take devices of any type.")] = False,
    calibration: Calibration = None,
    mtbf_hours: Mtbf = None,
    repair_hours: Repair = None,
    failure_shape: Shape = None,
    workers: Workers = None,
    as_json: options.Json = False,
) -> None:
    """Replay a trace of jobs on a fleet in virtual time, under one policy or several, and compare them."""
    chosen = {
        "trace": str(trace),
        "fleet": str(fleet),
        "policies": policy or ["fifo"],
        "placements": placement or ["consolidate"],
        "loads": load or [1.0],
        "seeds": seed or [0],
        "report": str(report) if report else None,
        "tables": str(tables) if tables else None,
        "cluster": cluster,
        "group": group,
        "from_s": from_s,
        "until_s": until_s,
        "any_type": any_type,
        "workers": workers,
        "as_json": as_json,
        "calibration": str(calibration) if calibration else None,
        "mtbf_hours": mtbf_hours,
        "repair_hours": repair_hours,
        "failure_shape": failure_shape,
    }
    # Become the program that simulates: the command line knows only how to talk to a fleet.
    argv = [sys.executable, "-m", "midstep.app.sim", json.dumps(chosen)]
    sys.stdout.flush()
    os.execv(sys.executable, [*argv, "--json"] if as_json else argv)
