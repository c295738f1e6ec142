"""What `midstep show` prints."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from midstep.cli.output import STYLES, age, clock, columns, counted, duration, print_table, size

if TYPE_CHECKING:
    from midstep.client.types import CheckpointView, FractionView, JobView, MoveView
    from midstep.model.phase import StepTiming


def print_job(job: JobView) -> None:
    """The whole story, the most important first."""
    for name, value in _facts(job):
        if value:
            _fact(name, value)
    if job.last_lines:
        _head("its last lines")
        for line in job.last_lines:
            print(f"  {line}")
    for stall in job.stalls:
        _head(f"stalled for {stall.waiting_s:.0f} s: {stall.operation} of group {stall.group}")
        print(f"  posted by ranks {_numbers(stall.posted)}; not by {_numbers(stall.missing)}")
    _ranks(job)
    for move in job.moves:
        _move(move)


def _facts(job: JobView) -> list[tuple[str, str]]:
    where = f" in {job.region}" if job.region else ""
    return [
        ("job", f"{job.job_id}{f' ({job.name})' if job.name else ''}"),
        ("state", f"{job.state}{where}"),
        ("because", job.reason if job.reason != job.failure else ""),
        ("failure", job.failure),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("command", shlex.join(job.command)),
        ("devices", _devices(job)),
        ("asked for", f"{counted(job.devices)}, {counted(job.world_size, 'rank')}, {job.tier}, {job.kind}"),
        ("standing", _standing(job)),
        ("received", _received(job.received)),
        ("submitted", clock(job.submitted_s)),
        ("started", clock(job.started_s)),
        ("ended", f"{clock(job.ended_s)}, after {age(job.submitted_s, job.ended_s)}" if job.ended_s else ""),
        ("snapshot", f"{job.snapshot}, {size(job.snapshot_bytes)}" if job.snapshot else ""),
        ("older", job.older_snapshot),
        ("saved", _saved(job.checkpoints)),
        ("at risk", duration(job.checkpoints.at_risk_s) if job.checkpoints.at_risk_s else ""),
        ("epoch", str(job.epoch)),
    ]


def _saved(saves: CheckpointView) -> str:
    """How often, why, what it costs, and when next."""
    kept = f"the newest {saves.keep} are kept"
    if saves.every_s is None:
        return f"{saves.why}; {kept}"
    cost = f", {duration(saves.pause_s)} each" if saves.pause_s is not None else ""
    due = f", next at {clock(saves.next_s)}" if saves.next_s is not None else ""
    return f"every {duration(saves.every_s)} ({saves.why}){cost}{due}; {saves.taken} so far; {kept}"


def _devices(job: JobView) -> str:
    """How many it has for its ranks, and how many it shall have."""
    differs = job.devices_wanted != job.devices_now and not job.ended_s
    shall = f", shall have {job.devices_wanted}" if differs else ""
    return f"{job.devices_now}/{job.world_size}{shall}"


def _standing(job: JobView) -> str:
    """How the scheduler may treat it."""
    few, many = job.min_devices, job.devices
    size = f"{few} to {many} devices" if few != many else f"always {counted(many)}"
    pinned = f", {job.devices_wanted} by its user's word (`midstep resize JOB --auto`)" if job.pinned else ""
    project = f", project {job.project}" if job.project else ""
    return f"{job.priority} priority, {size}{pinned}{project}"


def _received(fraction: FractionView) -> str:
    """Of the devices that it asked for."""
    if fraction.hour is None or fraction.life is None:
        return ""
    promised = f" ({fraction.guarantee:.0%} promised)" if fraction.guarantee else ""
    sums = f"{duration(fraction.received_s)} of {duration(fraction.asked_s)} device time"
    return f"{fraction.hour:.0%} over the last hour{promised}, {fraction.life:.0%} in all: {sums}"


def _ranks(job: JobView) -> None:
    if not job.ranks:
        return
    _head("ranks")
    heads = columns(">Rank", "Node", "Devices", ">Exit")
    rows = [
        (str(r.rank), r.node, _numbers(r.devices), "" if r.exit_code is None else str(r.exit_code))
        for r in job.ranks
    ]
    print_table(heads, rows)


def _move(move: MoveView) -> None:
    verdict = "" if move.ok else " (did not succeed)"
    _head(
        f"{move.kind} at {clock(move.started_s)}: {duration(move.duration_s)}, {size(move.nbytes)}{verdict}"
    )
    if move.message:
        print(f"  {move.message}")
    if move.steps:
        known = any(s.known_bytes for s in move.steps)
        heads = columns("Phase", "Node", ">Took", ">Bytes", *([">Were there"] if known else []))
        rows = [
            (*_step(s.step), duration(s.duration_s), *(size(n) if n else "" for n in _sizes(s, known)))
            for s in move.steps
        ]
        print_table(heads, rows)


def _sizes(step: StepTiming, known: bool) -> tuple[int, ...]:
    return (step.nbytes, step.known_bytes) if known else (step.nbytes,)


def _step(name: str) -> tuple[str, str]:
    step, _, node = name.partition("@")
    return step, node


def _numbers(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _fact(name: str, value: str) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        style = STYLES.get(value.split()[0], "") if name == "state" else "red" if name == "failure" else ""
        Console().print(Text(f"{name:<10} ", style="bold").append(Text(value, style=style or "not bold")))
    else:
        print(f"{name:<10} {value}")


def _head(text: str) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(Text(f"\n{text}", style="bold"))
    else:
        print(f"\n{text}")
