"""`midstep plan`: what would happen. Nothing is done."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import typer

from midstep.cli import options
from midstep.cli.drain import Node
from midstep.cli.exits import Exit, guarded
from midstep.cli.submit import DRY, RUN_SETTINGS, run

if TYPE_CHECKING:
    from midstep.client.types import PlanView

_SUBMIT = (
    "What would happen to a job with these options (those of `midstep run`), and to others because of it."
)
plan = typer.Typer(help="Say what would happen; do nothing.", no_args_is_help=True)


@plan.command("submit", context_settings=RUN_SETTINGS, help=_SUBMIT)
@wraps(run)
def submit(**chosen: Any) -> None:
    """`midstep run` that only asks."""
    DRY.set(True)
    run(**chosen)


@plan.command("drain")
def drain(node: Node, state: options.State = None, as_json: options.Json = False) -> None:
    """Where the jobs of a node would go, and which could not."""

    def work() -> int:
        with options.connect(state) as fleet:
            view = fleet.plan_drain(node)
        return say_plan(view, as_json)

    guarded(work)


def say_plan(view: PlanView, as_json: bool) -> int:
    """Print it. Answers the exit code: OK if it fits."""
    from midstep.cli.output import columns, print_json, print_table

    if as_json:
        print_json(view)
        return Exit.OK if view.fits else Exit.CONFLICT
    if view.steps:
        rows = [(one.name or one.job_id, one.action, one.reason, one.message) for one in view.steps]
        print_table(columns("Job", "Action", "Reason", "In words"), rows)
        print()
    tier = f" ({view.tier})" if view.tier else ""
    print(f"{view.summary}{tier}")
    return Exit.OK if view.fits else Exit.CONFLICT
