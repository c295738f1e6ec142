"""`midstep top`: what jobs do with the fleet's devices, live."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import Exit, guarded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from midstep.client.fleet import FleetClient
    from midstep.client.types import MetricsView, NodeView

_PATIENCE_S = 10.0  # for a controller that restarts
Rows = list[tuple[str, ...]]


def top(
    once: Annotated[
        bool, typer.Option("--once", help="Print it once; so where there is no terminal.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", "-n", min=0.2, max=3600.0, help="Seconds between two looks.")
    ] = 2.0,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """What the jobs do with the devices, live: steps a second, where their time goes, memory."""

    def work() -> int:
        with options.connect(state) as fleet:
            if as_json or once or not sys.stdout.isatty():
                _print_once(fleet, as_json)
                return 0
            fleet.be_patient(_PATIENCE_S)
            return _live(fleet, interval)

    guarded(work)


def job_rows(metrics: list[MetricsView]) -> Rows:
    """A row for each job."""
    from midstep.cli.output import percent, size
    from midstep.cli.show_metrics import rate

    rows: Rows = []
    for m in metrics:
        now, moved = m.shares, m.reduced_bytes_per_s
        parts = (now.computing, now.reducing, now.waiting) if now else ()
        rows.append(
            (
                m.name or m.job_id,
                m.state,
                f"{m.devices}/{m.world_size}",
                str(m.steps) if m.counted else "",
                rate(m.steps_per_s),
                *(f"{part:.0%}" for part in parts or ()),
                *([""] * (3 - len(parts))),
                f"{size(int(moved))}/s" if moved else "",
                size(m.memory.resident) if m.memory.resident else "",
                efficiency(m),
                percent(m.received.hour),
            )
        )
    return rows


def efficiency(metrics: MetricsView) -> str:
    """Of the number of devices that the job has now, to the best that was seen; '' before it is known."""
    if len(metrics.sizes) < 2:
        return ""
    return next((f"{s.efficiency:.0%}" for s in metrics.sizes if s.devices == metrics.devices), "")


def device_rows(nodes: list[NodeView], metrics: list[MetricsView]) -> Rows:
    """A row for each device, and which jobs have it."""
    from midstep.cli.output import share_of

    names = {m.job_id: m.name or m.job_id for m in metrics}
    return [
        (
            node.name,
            node.region,
            f"{device.device_type}:{device.index}",
            "" if node.connected else "not connected",
            ", ".join(share_of(device, job, names.get(job, job)) for job in device.jobs),
        )
        for node in nodes
        for device in node.devices
    ]


_JOBS = ("Job", "State", ">Devices", ">Steps", ">Steps/s", ">Computing", ">Reducing", ">Waiting")
_JOBS_TOO = (">Reduced", ">Memory", ">Efficiency", ">Received")
_DEVICES = ("Node", "Region", "Device", "Note", "Jobs")


def _print_once(fleet: FleetClient, as_json: bool) -> None:
    from midstep.cli.output import columns, print_json, print_table

    metrics, nodes = fleet.all_metrics(), fleet.nodes()
    if as_json:
        print_json({"jobs": metrics, "nodes": nodes})
        return
    print_table(columns(*_JOBS, *_JOBS_TOO), job_rows(metrics))
    print()
    print_table(columns(*_DEVICES), device_rows(nodes, metrics))


def _live(fleet: FleetClient, interval_s: float) -> int:
    import time

    from rich.live import Live

    try:
        with Live(_screen(fleet), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval_s)
                live.update(_screen(fleet), refresh=True)
    except KeyboardInterrupt:
        return Exit.OK


def _screen(fleet: FleetClient) -> RenderableType:
    import time

    from rich.console import Group
    from rich.text import Text

    from midstep.cli.output import clock, columns, table

    metrics, nodes = fleet.all_metrics(), fleet.nodes()
    devices = [device for node in nodes for device in node.devices]
    used = sum(bool(device.jobs) for device in devices)
    head = f"{clock(time.time())}   {len(metrics)} jobs on {used} of {len(devices)} devices   Ctrl-C ends"
    return Group(
        Text(head, style="bold"),
        Text(),
        table(columns(*_JOBS, *_JOBS_TOO), job_rows(metrics)),
        Text(),
        table(columns(*_DEVICES), device_rows(nodes, metrics)),
    )
