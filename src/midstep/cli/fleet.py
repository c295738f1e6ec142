"""`midstep up`, `down`, `doctor`, `nodes`, `events`, `version`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from midstep.cli import options
from midstep.cli.exits import UsageError, guarded
from midstep.cli.output import pause

if TYPE_CHECKING:
    from midstep.client.types import EventView

EVENT_POLL_S = 0.5


def up(
    regions: Annotated[int | None, typer.Option(min=1, help="Regions.", show_default="2")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes in each region.", show_default="2")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices in each node.", show_default="2")
    ] = None,
    spot: Annotated[
        int | None,
        typer.Option(min=0, help="Nodes of each region that may be taken away.", show_default="0"),
    ] = None,
    federated: options.Federated = None,
    name: Annotated[str, typer.Option(help="The fleet's name.", show_default="made up")] = "",
    cpu: Annotated[bool, typer.Option("--cpu", help="CPU cores as devices, even if there are GPUs.")] = False,
    checkpoint_every: options.CheckpointEvery = None,
    checkpoint_min: Annotated[
        float | None, typer.Option(min=1, help="With auto: seconds at least.", show_default="60")
    ] = None,
    checkpoint_max: Annotated[
        float | None, typer.Option(min=1, help="With auto: seconds at most.", show_default="3600")
    ] = None,
    keep: options.Keep = None,
    lost_node_after: Annotated[
        float | None,
        typer.Option(min=20, help="Seconds until jobs of a silent node go on elsewhere.", show_default="60"),
    ] = None,
    rest: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds that a job is left alone after the scheduler moved it.", show_default="120"
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and take the fleet down on Ctrl-C.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all nodes must be there.")] = 120.0,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Start a fleet on this machine: regions of virtual nodes, each in its own namespaces."""
    hand_over(
        "up",
        regions=regions,
        nodes=nodes,
        devices=devices,
        spot=spot,
        federated=federated,
        name=name,
        cpu=cpu,
        rule=_rule(checkpoint_every, checkpoint_min, checkpoint_max, keep),
        lost_node_s=lost_node_after,
        rest_s=rest,
        foreground=foreground,
        timeout_s=timeout,
        state=str(state) if state else None,
        as_json=as_json,
    )


def _rule(
    every: str | None, least_s: float | None, most_s: float | None, keep: int | None
) -> dict[str, object] | None:
    from dataclasses import asdict

    from midstep.cli.checkpoints import rule_of

    try:
        rule = rule_of(every, least_s, most_s, keep)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    return None if rule is None else asdict(rule)


def down(
    now: Annotated[bool, typer.Option("--now", help="Do not suspend running jobs first.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the state folder too, with all jobs.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds for suspending running jobs.")] = 120.0,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Stop the fleet. Running jobs are suspended; after `midstep up` they can be resumed."""
    hand_over(
        "down", now=now, purge=purge, timeout_s=timeout, state=str(state) if state else None, as_json=as_json
    )


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Install CRIU if it is missing or too old.")] = False,
    as_json: options.Json = False,
) -> None:
    """Say what this machine can do, and what to do about each lack."""
    hand_over("doctor", fix=fix, as_json=as_json)


def hand_over(verb: str, **chosen: object) -> NoReturn:
    """Become the program that makes nodes: the command line knows only how to talk to a fleet."""
    argv = [sys.executable, "-m", "midstep.app.local", verb, json.dumps(chosen)]
    if chosen.get("as_json"):
        argv.append("--json")
    sys.stdout.flush()
    os.execv(sys.executable, argv)


def nodes(state: options.State = None, as_json: options.Json = False) -> None:
    """List nodes, their devices, and the jobs on them."""

    def work() -> int:
        from midstep.cli.output import age, columns, print_json, print_table, share_of

        with options.connect(state) as fleet:
            found = fleet.nodes()
        if as_json:
            print_json(found)
            return 0
        heads = columns("Node", "Region", "Connected", ">Device", "Type", "Cores", "Jobs")
        rows: list[tuple[str, ...]] = []
        for node in found:
            there = (
                "yes" if node.connected else f"no, for {age(node.last_seen_s)}" if node.last_seen_s else "no"
            )
            there += " (freezes in place)" if node.freezes_in_place else ""
            there += " (cordoned)" if node.cordoned else ""
            there += " (spot)" if node.spot else ""
            for device in node.devices:
                cores = ",".join(map(str, device.cpus))
                jobs = ",".join(share_of(device, job) for job in device.jobs)
                rows.append(
                    (node.name, node.region, there, str(device.index), device.device_type, cores, jobs)
                )
        print_table(heads, rows)
        return 0

    guarded(work)


def events(
    job: Annotated[
        str | None,
        typer.Option(help="Only of this job.", show_default="all", autocompletion=options.complete_job),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only those after this number.")] = 0,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """What happened, oldest first. With --json, one object a line."""

    def work() -> int:
        with options.connect(state) as fleet:
            job_id = fleet.job(job).job_id if job else None
            last = after
            while True:
                found = fleet.events(job_id, last)
                _print_events(found, as_json)
                last = found[-1].number if found else last
                if not found and not follow:
                    return 0
                if follow:
                    fleet.be_patient(60.0)
                    pause(EVENT_POLL_S)

    guarded(work)


def version(state: options.State = None, as_json: options.Json = False) -> None:
    """Print the versions of this program and of the fleet."""

    def work() -> int:
        from midstep.cli.output import print_json

        own, there = own_version(), _fleet_version(state)
        if as_json:
            print_json({"client": own, "fleet": there})
        else:
            print(f"midstep {own}" + (f" (fleet: {there})" if there else " (no fleet)"))
        return 0

    guarded(work)


def own_version() -> str:
    """Of the installed package."""
    from importlib import metadata

    try:
        return metadata.version("midstep")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


def _fleet_version(state: Path | None) -> str | None:
    from midstep.client.errors import ClientError

    try:
        with options.connect(state, timeout_s=3.0) as fleet:
            return fleet.health().version
    except ClientError:
        return None


def _print_events(found: list[EventView], as_json: bool) -> None:
    from pydantic_core import to_json

    from midstep.cli.output import clock, duration, size

    for event in found:
        if as_json:
            print(to_json(event).decode())
            continue
        cost = "  ".join(p for p in (duration(event.duration_s), size(event.nbytes or None)) if p)
        print(
            f"{event.number:>6}  {clock(event.at_s)}  {event.job_id or '-':<9}  {event.node or '-':<10}  "
            f"{event.kind:<10}  {event.message}{f'  {cost}' if cost else ''}"
        )
    sys.stdout.flush()
