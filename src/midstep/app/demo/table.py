"""The verdict: every loss, the weights, and what each move cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from midstep.app.demo.plays import Outcome, Play
from midstep.model.phase import StepTiming


def differences(calm: Outcome, moved: Outcome) -> list[str]:
    """Everything in which a disturbed run differs from the undisturbed one; empty: nothing."""
    found = [
        f"step {step}: {moved.losses.get(step, 'missing')} instead of {loss}"
        for step, loss in sorted(calm.losses.items())
        if moved.losses.get(step) != loss
    ]
    found += [
        f"step {step} is not in the undisturbed run" for step in sorted(set(moved.losses) - set(calm.losses))
    ]
    if not calm.weights or calm.weights != moved.weights:
        found.append(f"final weights {moved.weights or 'missing'} instead of {calm.weights or 'missing'}")
    return found


def show_losses(console: Console, play: Play, calm: Outcome, moved: Outcome) -> None:
    """Losses side by side: the first, some in the middle, the last."""
    table = Table(title=f"{play.title} ({play.script}): {', '.join(moved.cuts)}")
    for title in ("step", "torchrun, undisturbed", "Midstep, disturbed", "equal"):
        table.add_column(title, justify="right")
    steps = sorted(calm.losses)
    for step in steps[:: max(1, len(steps) // 8)] + steps[-1:]:
        ours = moved.losses.get(step, "missing")
        table.add_row(
            str(step), calm.losses[step], ours, "yes" if ours == calm.losses[step] else "[red]NO[/]"
        )
    table.add_row(
        "weights", calm.weights[:20], moved.weights[:20], "yes" if calm.weights == moved.weights else "NO"
    )
    console.print(table)


def show_moves(console: Console, moved: list[tuple[Play, Outcome]]) -> None:
    """Each move's phases, the longest node's first."""
    table = Table(title="what each move cost")
    for title in ("job", "move", "whole", "freeze + drain", "dump", "files", "restore", "snapshot"):
        table.add_column(title, justify="left" if title in ("job", "move") else "right")
    for _, outcome in moved:
        for move in outcome.job.moves if outcome.job else ():
            took = {
                name: _longest(move.steps, name)
                for name in ("freeze", "drain", "dump", "store", "copy", "restore")
            }
            table.add_row(
                outcome.job.name if outcome.job else "",
                move.kind,
                f"{move.duration_s:.2f} s",
                f"{1e3 * (took['freeze'] + took['drain']):.0f} ms",
                f"{took['dump']:.2f} s",
                f"{took['store'] + took['copy']:.2f} s",
                f"{took['restore']:.2f} s",
                f"{move.nbytes / 1e6:.0f} MB",
            )
    console.print(table)


def _longest(steps: Sequence[StepTiming], name: str) -> float:
    found = [s.duration_s for s in steps if s.step.split("@")[0] == name]
    return max(found, default=0.0)
