"""`midstep checkpoint`, and how checkpoints are asked for in options and job files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from midstep.cli import options
from midstep.cli.exits import Exit, UsageError, guarded
from midstep.model.job import CheckpointRule

if TYPE_CHECKING:
    from midstep.client.types import JobView, MoveView

KIND = "checkpoint"


def checkpoint(
    job: options.Job,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Save a running job now; it goes on. If its processes are lost, it goes on from there."""
    guarded(lambda: _checkpoint(job, wait, timeout, state, as_json))


def parse_every(text: str) -> CheckpointRule:
    """`auto`, `off`, or seconds. UsageError: anything else."""
    if text == "auto":
        return CheckpointRule()
    if text == "off":
        return CheckpointRule(off=True)
    try:
        every_s = float(text)
    except ValueError:
        every_s = 0.0
    if not every_s >= 1:
        raise UsageError(f"checkpoints every {text!r}", "give auto, off, or a number of seconds, 1 or more")
    return CheckpointRule(every_s=every_s)


def rule_of(
    every: str | None, least_s: float | None, most_s: float | None, keep: int | None = None
) -> CheckpointRule | None:
    """What was asked for; None: nothing. UsageError: bounds that contradict each other or what they bound."""
    rule = _interval_rule(every, least_s, most_s)
    return rule if keep is None else replace(rule or CheckpointRule(), keep=keep)


def _interval_rule(every: str | None, least_s: float | None, most_s: float | None) -> CheckpointRule | None:
    if every is None and least_s is None and most_s is None:
        return None
    rule = parse_every(every or "auto")
    if (least_s, most_s) == (None, None):
        return rule
    if rule.off or rule.every_s is not None:
        raise UsageError("the least and the most seconds between checkpoints need auto", "leave them out")
    if least_s is not None and most_s is not None and least_s > most_s:
        raise UsageError(f"at least {least_s:g} s and at most {most_s:g} s between checkpoints")
    return CheckpointRule(min_s=least_s, max_s=most_s)


def _checkpoint(job: str, wait: bool, timeout_s: float | None, state: Path | None, as_json: bool) -> int:
    from midstep.cli.output import duration, print_json, say, size

    with options.connect(state) as fleet:
        before = {move.started_s for move in fleet.job(job).moves if move.kind == KIND}
        view = fleet.checkpoint(job)
        named = view.name or view.job_id
        if wait:
            fleet.be_patient(60.0)
            view = fleet.wait(view.job_id, lambda v: bool(_ended(v, before)), timeout_s)
    if as_json:
        print_json(view)
    if not wait:
        if not as_json:
            say(f"{named} is being saved")
        return Exit.OK
    done = _ended(view, before)
    if done and done[-1].ok:
        if not as_json:
            cost = f"{duration(done[-1].duration_s)}, {size(done[-1].nbytes)}"
            say(f"{named} is saved as {view.snapshot}: {cost}")
        return Exit.OK
    reason = done[-1].message if done else view.failure or view.reason
    say(f"midstep: {named} was not saved{f': {reason}' if reason else ''}")
    return Exit.CONFLICT


def _ended(view: JobView, before: set[float]) -> list[MoveView]:
    """New checkpoints that came to an end, one way or the other."""
    new = [move for move in view.moves if move.kind == KIND and move.started_s not in before]
    return [move for move in new if move.ok or move.message != "under way"]
