"""The command line's door: `midstep` is `app`."""

from __future__ import annotations

import sys

import typer

from midstep.cli import (
    checkpoints,
    drain,
    fleet,
    jobs,
    logs,
    moves,
    plan,
    quota,
    schedule,
    sim,
    submit,
    top,
    vault,
)
from midstep.cli.exits import guarded

HELP = "Run PyTorch jobs that can be suspended, moved and resumed in the middle of a step."
FLEET, JOBS, LOOKING = "The fleet", "Jobs", "Looking"

cli = typer.Typer(
    name="midstep",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command(rich_help_panel=FLEET)(fleet.up)
cli.command(rich_help_panel=FLEET)(fleet.down)
cli.command(rich_help_panel=FLEET)(fleet.doctor)
cli.command(rich_help_panel=FLEET)(drain.cordon)
cli.command(rich_help_panel=FLEET)(drain.uncordon)
cli.command(rich_help_panel=FLEET)(drain.drain)
cli.add_typer(plan.plan, name="plan", rich_help_panel=LOOKING)
cli.add_typer(quota.quota, name="quota", rich_help_panel=FLEET)
cli.command(rich_help_panel=JOBS, context_settings=submit.RUN_SETTINGS)(submit.run)
cli.command(rich_help_panel=JOBS)(submit.submit)
cli.command(rich_help_panel=JOBS)(moves.suspend)
cli.command(rich_help_panel=JOBS)(moves.resume)
cli.command(rich_help_panel=JOBS)(moves.migrate)
cli.command(rich_help_panel=JOBS)(moves.resize)
cli.command(rich_help_panel=JOBS)(checkpoints.checkpoint)
cli.command(rich_help_panel=JOBS)(moves.cancel)
cli.command(rich_help_panel=JOBS)(jobs.pull)
cli.command(rich_help_panel=LOOKING)(jobs.ps)
cli.command(rich_help_panel=LOOKING)(jobs.show)
cli.command(rich_help_panel=LOOKING)(schedule.why)
cli.command(rich_help_panel=LOOKING)(schedule.queue)
cli.command(rich_help_panel=LOOKING)(top.top)
cli.command(rich_help_panel=LOOKING)(logs.logs)
cli.command(rich_help_panel=LOOKING)(fleet.nodes)
cli.command(rich_help_panel=LOOKING)(fleet.events)
cli.command(rich_help_panel=LOOKING)(fleet.version)
cli.command(rich_help_panel=LOOKING)(sim.sim)
cli.add_typer(vault.vault, name="vault", rich_help_panel=FLEET)


def app() -> None:
    """The entry point. Exits; never lets a traceback out."""
    guarded(lambda: cli(prog_name="midstep"))


if __name__ == "__main__":
    app()
