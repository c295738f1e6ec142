"""`midstep ps`, `show`, `pull`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import Exit, guarded

if TYPE_CHECKING:
    from midstep.client.types import JobView


def ps(
    all_jobs: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """List jobs."""

    def work() -> int:
        from midstep.cli.logs import has_ended
        from midstep.cli.output import print_json, say

        with options.connect(state) as fleet:
            jobs = fleet.jobs()
        shown = [j for j in jobs if all_jobs or not has_ended(j)]
        if as_json:
            print_json(shown)
            return 0
        _print_jobs(shown)
        if len(shown) < len(jobs):
            say(f"{len(jobs) - len(shown)} ended: midstep ps --all")
        return 0

    guarded(work)


def show(job: options.Job, state: options.State = None, as_json: options.Json = False) -> None:
    """Everything about one job: ranks, moves and what they cost, why it waits or failed."""

    def work() -> int:
        from midstep.cli.output import print_json
        from midstep.cli.show import print_job
        from midstep.cli.show_metrics import print_metrics

        with options.connect(state) as fleet:
            view = fleet.job(job)
            metrics = fleet.metrics(view.job_id)
        if as_json:
            print_json({**asdict(view), "metrics": metrics})
        else:
            print_job(view)
            print_metrics(metrics)
        return 0

    guarded(work)


def pull(
    job: options.Job,
    destination: Annotated[Path | None, typer.Argument(metavar="DEST", show_default="./JOB")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that are there and differ.")
    ] = False,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Fetch the files of an ended or suspended job."""

    def work() -> int:
        from midstep.cli.output import print_json, say
        from midstep.client.pull import pull as pull_files

        with options.connect(state) as fleet:
            view = fleet.job(job)
            target = destination or Path(view.name or view.job_id)
            pulled = pull_files(fleet, view.job_id, target, may_replace=lambda _: force)
        if as_json:
            print_json(
                {
                    "destination": str(target),
                    "written": pulled.written,
                    "same": pulled.same,
                    "kept": pulled.kept,
                    "refused": pulled.refused,
                }
            )
        else:
            say(f"{len(pulled.written)} files written to {target}, {pulled.same} were there already")
        if pulled.refused:
            say(f"midstep: left out, because they lead elsewhere: {', '.join(pulled.refused[:8])}")
        if pulled.kept:
            say(f"midstep: {len(pulled.kept)} files differ and were left alone: {', '.join(pulled.kept[:8])}")
            say("  --force overwrites them")
            return Exit.CONFLICT
        return 0

    guarded(work)


def _print_jobs(jobs: list[JobView]) -> None:
    from midstep.cli.output import age, columns, percent, print_table

    heads = columns(
        "Job",
        "Name",
        "State",
        "Tier",
        "Priority",
        "Project",
        ">Devices",
        ">Received",
        "Nodes",
        ">Age",
        "Note",
    )
    rows = [
        (
            j.job_id,
            j.name,
            j.state,
            j.tier,
            j.priority,
            j.project,
            f"{j.devices_now}/{j.world_size}",
            percent(j.received.hour),
            ",".join(dict.fromkeys(r.node for r in j.ranks if r.node)),
            age(j.submitted_s),
            _note(j),
        )
        for j in jobs
    ]
    print_table(heads, rows)


def _note(job: JobView) -> str:
    if job.stalls:
        return f"stalled for {job.stalls[0].waiting_s:.0f} s: midstep show {job.name or job.job_id}"
    return job.failure.splitlines()[0] if job.failure else job.reason
