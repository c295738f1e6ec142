"""What `midstep show` and `top` say of a job's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midstep.cli.output import columns, duration, print_table, size

if TYPE_CHECKING:
    from midstep.client.types import MemoryView, MetricsView, SharesView


def print_metrics(metrics: MetricsView) -> None:
    """A compact section; nothing where nothing was measured."""
    if metrics.at_s is None:
        return
    print("\nmeasured")
    for name, value in facts(metrics):
        if value:
            print(f"  {name:<9} {value}")
    if metrics.sizes:
        heads = columns(">Devices", ">Steps/s", ">Efficiency", ">Measured for")
        rows = [
            (str(s.devices), rate(s.steps_per_s), f"{s.efficiency:.0%}", duration(s.measured_s))
            for s in metrics.sizes
        ]
        print_table(heads, rows)


def facts(metrics: MetricsView) -> list[tuple[str, str]]:
    """Name and value of each line."""
    now = f", {rate(metrics.steps_per_s)} a second" if metrics.steps_per_s is not None else ""
    of = " by the rhythm of its collectives" if metrics.counted == "collectives" else ""
    moved = metrics.reduced_bytes_per_s
    reduced = f"{size(metrics.reduced_bytes)}{f', {size(int(moved))} a second' if moved is not None else ''}"
    sums = (metrics.computing_s, metrics.reducing_s, metrics.waiting_s, metrics.queueing_s)
    return [
        ("steps", f"{metrics.steps}{now}{of}" if metrics.counted else "none seen"),
        ("time now", shares(metrics.shares)),
        ("time", spent(*sums) if sum(sums) else ""),
        ("reduced", reduced if metrics.reduced_bytes else ""),
        ("memory", memory(metrics.memory)),
    ]


def rate(steps_per_s: float | None) -> str:
    """'12.3', '0.045'; '' for None."""
    return "" if steps_per_s is None else f"{steps_per_s:.3g}"


def shares(of: SharesView | None) -> str:
    """Where the time of the last seconds goes."""
    if of is None:
        return ""
    turn = f" ({of.queueing:.0%} for a turn on the device)" if of.queueing >= 0.005 else ""
    return f"{of.computing:.0%} computing, {of.reducing:.0%} in collectives, {of.waiting:.0%} waiting{turn}"


def spent(computing_s: float, reducing_s: float, waiting_s: float, queueing_s: float) -> str:
    """The same of all ranks, in seconds, since the job began."""
    turn = f" ({duration(queueing_s)} for a turn on the device)" if queueing_s >= 0.5 else ""
    parts = (f"{duration(computing_s)} computing", f"{duration(reducing_s)} in collectives")
    return f"{', '.join(parts)}, {duration(waiting_s)} waiting{turn}, all ranks together"


def memory(of: MemoryView) -> str:
    """By kind, of the rank that has most."""
    if not (of.parameters or of.resident):
        return ""
    once = f", {size(of.shared)} of it shared on the device" if of.shared else ""
    known = f"{size(of.parameters)} parameters, {size(of.optimizer)} optimizer{once}"
    parts = [known, f"{size(of.gradients)} gradients", f"{size(of.other)} activations and other"]
    return ", ".join(parts if of.parameters else parts[2:]) + f" a rank; {size(of.resident)} in all"
