"""`midstep run` and `midstep submit`."""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli import run_options as given
from midstep.cli.checkpoints import rule_of
from midstep.cli.exits import UsageError, guarded
from midstep.cli.fork import refuse_changes
from midstep.cli.job import JobFile
from midstep.model.job import JobKind
from midstep.model.tiers import Priority, Tier

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from midstep.client.fleet import FleetClient
    from midstep.client.types import JobView
    from midstep.client.workdir import Listing

DRY = ContextVar("DRY", default=False)  # `midstep plan submit`: only say what would happen
RUN_SETTINGS = {"allow_interspersed_args": False}  # what follows the command's first word belongs to it


@dataclass(frozen=True, slots=True)
class Manner:
    """How to hand a job in: everything that is not part of the job."""

    state: Path | None
    max_upload_mb: int
    follow: bool
    json: bool
    dry: bool = False


def run(
    command: given.Command = None,
    name: given.Name = "",
    devices: given.Devices = None,
    ranks: given.Ranks = None,
    tier: given.Tiers = None,
    priority: given.Priorities = Priority.MEDIUM,
    project: given.Project = "",
    min_devices: given.Least = None,
    elastic: given.Elastic = True,
    spot_ok: given.SpotOk = False,
    kind: given.Kind = JobKind.TRAIN,
    device_type: given.DeviceType = None,
    env: given.Env = None,
    workdir: given.Workdir = Path("."),
    no_workdir: given.NoWorkdir = False,
    threads: given.Threads = 1,
    region: given.Place = None,
    node: given.Place = None,
    retries: given.Retries = 0,
    checkpoint_every: options.CheckpointEvery = None,
    keep: options.Keep = None,
    origin: given.Origin = None,
    follow: given.Follow = False,
    max_upload: given.MaxUpload = 1024,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Run a command as a job: midstep run --devices 2 -- python train.py --lr 0.1"""
    job = JobFile(
        command=command or [],
        workdir=None if no_workdir else workdir,
        name=name,
        devices=devices,
        ranks=ranks,
        tier=tier,
        kind=kind,
        device_type=device_type,
        threads=threads,
        region=region,
        node=node,
        retries=retries,
        checkpoint_every=checkpoint_every,
        keep=keep,
        priority=priority,
        project=project,
        min_devices=min_devices,
        elastic=elastic,
        spot_ok=spot_ok,
    )
    manner = Manner(state, max_upload, follow, as_json, DRY.get())

    def work() -> int:
        if origin is not None:
            return _go_on(job, env or [], no_workdir, manner, origin)
        if not job.command:
            raise UsageError("COMMAND is missing", "midstep run -- python train.py")
        return hand_in(job, env or [], manner)

    guarded(work)


def _go_on(job: JobFile, env: list[str], no_workdir: bool, manner: Manner, origin: str) -> int:
    if manner.dry:
        raise UsageError("what starts from a snapshot cannot be planned", "give a command in place of --from")
    refuse_changes(job, env, no_workdir)
    return hand_in(replace(job, workdir=None), [], manner, origin)


def submit(
    file: Annotated[Path, typer.Argument(help="A job file (YAML).", metavar="JOB.yaml")],
    follow: given.Follow = False,
    max_upload: given.MaxUpload = 1024,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Submit the job that a file describes. Its fields are the options of `midstep run`."""

    def work() -> int:
        from midstep.cli.jobfile import read

        job = read(file)
        pairs = [f"{k}={v}" for k, v in job.env.items()]
        return hand_in(job, pairs, Manner(state, max_upload, follow, as_json))

    guarded(work)


def hand_in(job: JobFile, env: list[str], manner: Manner, origin: str | None = None) -> int:
    """Upload, submit, follow. Answers the exit code. ``origin``: a snapshot that it goes on from."""
    from midstep.cli.command import environment, full_command
    from midstep.client.types import JobRequest

    rule = rule_of(job.checkpoint_every, job.checkpoint_min, job.checkpoint_max, job.keep)
    command = full_command(job.command, os.environ) if origin is None else ()
    variables = environment(env, os.environ) if origin is None else {}
    with options.connect(manner.state) as fleet:
        listing, blob = _send_files(fleet, None if manner.dry else job.workdir, manner)
        request = JobRequest(
            command=command,
            devices=job.devices,
            ranks=job.ranks,
            name=job.name,
            tier=Tier(job.tier) if job.tier else None,
            kind=JobKind(job.kind),
            device_type=job.device_type,
            env=variables,
            workdir_blob=blob,
            threads=job.threads,
            uid=os.getuid(),
            gid=os.getgid(),
            region=job.region,
            node=job.node,
            retries=job.retries,
            checkpoints=rule,
            from_snapshot=origin,
            priority=Priority(job.priority),
            project=job.project,
            min_devices=job.min_devices,
            elastic=job.elastic,
            spot_ok=job.spot_ok,
        )
        if manner.dry:
            from midstep.cli.plan import say_plan

            return say_plan(fleet.plan_submit(request), manner.json)
        view = fleet.submit(request)
        if not manner.follow:
            _say_submitted(view, manner)
            return 0
        from midstep.cli.follow import follow_to_end

        return follow_to_end(fleet, view, listing, manner.json)


def _send_files(
    fleet: FleetClient, workdir: Path | None, manner: Manner
) -> tuple[Listing | None, str | None]:
    from midstep.client.workdir import pack, scan

    if workdir is None:
        return None, None
    listing = scan(workdir.expanduser().resolve(), manner.max_upload_mb * 10**6)
    if not listing.entries:
        return listing, None
    archive, nbytes = pack(listing)
    with archive:
        if not sys.stderr.isatty() or nbytes < 1_000_000:
            return listing, fleet.upload(archive, nbytes)
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("work directory"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("upload", total=nbytes)
            return listing, fleet.upload(archive, nbytes, partial(_advance, bar, task))


def _advance(bar: Progress, task: TaskID, sent: int) -> None:
    bar.update(task, completed=sent)


def _say_submitted(view: JobView, manner: Manner) -> None:
    from midstep.cli.output import print_json, say

    if manner.json:
        print_json(view)
        return
    print(view.job_id)
    named = view.name or view.job_id
    why = f" ({view.reason})" if view.reason else ""
    say(f"{named} is {view.state}{why}; `midstep logs -f {named}` shows its output")
