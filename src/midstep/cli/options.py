"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from midstep.client.fleet import FleetClient


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Names and ids of jobs, for the shell; nothing when no fleet answers."""
    try:
        with connect(None, timeout_s=2.0) as fleet:
            jobs = fleet.jobs()
    except Exception:
        return []
    words = [(word, f"{j.state} {j.name or j.job_id}") for j in jobs for word in (j.name, j.job_id) if word]
    return [pair for pair in dict(words).items() if pair[0].startswith(incomplete)]


def complete_place(incomplete: str) -> list[str]:
    """Names of nodes and regions, for the shell."""
    try:
        with connect(None, timeout_s=2.0) as fleet:
            nodes = fleet.nodes()
    except Exception:
        return []
    names = sorted({n.name for n in nodes} | {n.region for n in nodes})
    return [name for name in names if name.startswith(incomplete)]


def complete_node(incomplete: str) -> list[str]:
    """Names of nodes, for the shell."""
    try:
        with connect(None, timeout_s=2.0) as fleet:
            return sorted(n.name for n in fleet.nodes() if n.name.startswith(incomplete))
    except Exception:
        return []


State = Annotated[
    Path | None,
    typer.Option("--state", help="The fleet's state folder; else MIDSTEP_STATE says.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Job = Annotated[
    str, typer.Argument(help="A job's id, the beginning of one, or its name.", autocompletion=complete_job)
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, showing the phases.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most.", show_default="no limit")
]


Keep = Annotated[
    int | None,
    typer.Option(
        min=2, max=1000, help="How many of a running job's snapshots stay in the archive.",
        show_default="2; of a job: as the fleet",
    ),
]  # fmt: skip
Federated = Annotated[
    bool | None,
    typer.Option(
        "--federated/--no-federated",
        help="A controller for each region, and a global one above them.",
        show_default="no",
    ),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(
        help="auto, off, or seconds: how often running jobs are saved.", metavar="auto|off|SECONDS",
        show_default="auto; of a job: as the fleet",
    ),
]  # fmt: skip


def connect(state: Path | None, timeout_s: float = 30.0) -> FleetClient:
    """The client of the fleet in a state folder. Imported here: `--help` needs no HTTP client."""
    from midstep.client.fleet import FleetClient

    return FleetClient.of_state(state, timeout_s)
