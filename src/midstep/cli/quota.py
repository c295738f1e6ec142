"""`midstep quota`: what projects may count on."""

from __future__ import annotations

from typing import Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import guarded

quota = typer.Typer(help="What projects may count on.", invoke_without_command=True)
Project = Annotated[str, typer.Argument(help="A project: team, or team/sub.")]


@quota.callback()
def show(context: typer.Context, state: options.State = None, as_json: options.Json = False) -> None:
    """Projects, what each may count on, has, and waits for."""
    if context.invoked_subcommand is not None:
        return

    def work() -> int:
        from midstep.cli.output import columns, print_json, print_table, say

        with options.connect(state) as fleet:
            found = fleet.quotas()
        if as_json:
            print_json(found)
        elif not found:
            say("no project has a quota: midstep quota set PROJECT --devices N")
        else:
            heads = columns("Project", ">Quota", ">Weight", ">Fair share", ">Has", ">Borrows", ">Waits for")
            rows = [
                (
                    one.project,
                    "" if one.devices is None else str(one.devices),
                    f"{one.weight:g}",
                    "" if one.fair is None else f"{one.fair:.4g}",
                    str(one.used),
                    str(one.borrowed or ""),
                    str(one.waiting or ""),
                )
                for one in found
            ]
            print_table(heads, rows)
        return 0

    guarded(work)


@quota.command("set")
def put(
    project: Project,
    devices: Annotated[int, typer.Option(min=0, help="Devices that it may count on.")],
    weight: Annotated[
        float, typer.Option(help="Its share of what nobody is due, beside its siblings.")
    ] = 1.0,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Let a project count on so many devices. What sub-projects count on comes out of it."""

    def work() -> int:
        from midstep.cli.output import print_json, say

        with options.connect(state) as fleet:
            found = fleet.set_quota(project, devices, weight)
        if as_json:
            print_json(found)
        else:
            say(f"{project} may count on {devices} devices")
        return 0

    guarded(work)


@quota.command("rm")
def forget(project: Project, state: options.State = None) -> None:
    """Let a project count on nothing of its own any more."""

    def work() -> int:
        with options.connect(state) as fleet:
            fleet.forget_quota(project)
        return 0

    guarded(work)
