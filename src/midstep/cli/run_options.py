"""The options of `midstep run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midstep.cli import options
from midstep.cli.job import whole_or_part
from midstep.model.job import JobKind
from midstep.model.tiers import Priority, Tier


def devices(text: str) -> int | float:
    """Whole devices, or a part of one. BadParameter: neither."""
    try:
        return whole_or_part(float(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a whole number of 1 or more nor between 0 and 1"
        ) from None


Follow = Annotated[
    bool,
    typer.Option(
        "--follow", "-f", help="Print its output, bring changed files back, exit with its exit code."
    ),
]
Command = Annotated[
    list[str] | None,
    typer.Argument(help="The command; a .py file runs under `python`.", metavar="COMMAND..."),
]
Place = Annotated[
    str | None,
    typer.Option(help="Only there.", show_default="any", autocompletion=options.complete_place),
]
Origin = Annotated[
    str | None,
    typer.Option("--from", help="Go on from a snapshot (or a job's newest one), as a job of its own."),
]
Retries = Annotated[
    int, typer.Option(min=0, help="Run it again so often, from its newest snapshot, if it ends badly.")
]
Least = Annotated[
    int | None, typer.Option(min=1, help="The scheduler shrinks it no further.", show_default="1")
]
Elastic = Annotated[
    bool, typer.Option("--elastic/--no-elastic", help="May have fewer devices than it asks for for a while.")
]
SpotOk = Annotated[
    bool, typer.Option("--spot-ok", help="What it is promised may stand on nodes that can be taken away.")
]
MaxUpload = Annotated[int, typer.Option(min=1, help="Largest work directory, in MB.", metavar="MB")]
Name = Annotated[str, typer.Option(help="A name to call it by.")]
Devices = Annotated[
    float | None,
    typer.Option(
        parser=devices,
        metavar="N",
        help="Devices; below 1: a part of one (0.5).",
        show_default="the launcher's ranks, or 1",
    ),
]
Ranks = Annotated[int | None, typer.Option(min=1, help="World size.", show_default="as many as devices")]
Tiers = Annotated[
    Tier | None,
    typer.Option(
        "--tier", help="What it is promised.", show_default="standard if that can be kept, else basic"
    ),
]
Priorities = Annotated[Priority, typer.Option("--priority", help="Its turn among those of its tier.")]
Project = Annotated[str, typer.Option(help="Whose quota it is under: team/sub.")]
Kind = Annotated[JobKind, typer.Option(help="Ends by itself, or answers requests.")]
DeviceType = Annotated[str | None, typer.Option(help="As `midstep nodes` shows.", show_default="any one")]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="K=V, or K for the value here.")]
Workdir = Annotated[Path, typer.Option(help="Folder that goes with it.", show_default="this one")]
NoWorkdir = Annotated[bool, typer.Option("--no-workdir", help="It starts in an empty folder.")]
Threads = Annotated[int, typer.Option(min=1, help="Math threads per rank.")]
