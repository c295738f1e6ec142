"""`midstep why` and `midstep queue`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midstep.cli import options
from midstep.cli.exits import guarded

if TYPE_CHECKING:
    from midstep.cli.output import Column
    from midstep.client.types import QueueView, WhyView


def why(job: options.Job, state: options.State = None, as_json: options.Json = False) -> None:
    """What the scheduler decided about a job, when and why, and what would have to change for it to run."""

    def work() -> int:
        from midstep.cli.output import print_json

        with options.connect(state) as fleet:
            found = fleet.why(fleet.job(job).job_id)
        if as_json:
            print_json(found)
        else:
            _print_why(found)
        return 0

    guarded(work)


def queue(state: options.State = None, as_json: options.Json = False) -> None:
    """The jobs that wait for devices, in the order in which they are served, and why each waits."""

    def work() -> int:
        from midstep.cli.output import print_json, print_table, say

        with options.connect(state) as fleet:
            found = fleet.queue()
        if as_json:
            print_json(found)
        elif found:
            heads, rows = queue_rows(found)
            print_table(heads, rows)
        else:
            say("no job waits for devices")
        return 0

    guarded(work)


def queue_rows(found: list[QueueView]) -> tuple[list[Column], list[tuple[str, ...]]]:
    """A row for each job."""
    from midstep.cli.output import age, columns, percent

    heads = columns(
        ">Place", "Job", "Name", "Tier", "Priority", "Project", ">Devices", ">Waits", ">Received", "Reason"
    )
    rows = [
        (
            str(one.place),
            one.job_id,
            one.name,
            one.tier,
            one.priority,
            one.project,
            f"{one.min_devices}-{one.devices}" if one.min_devices != one.devices else str(one.devices),
            age(one.since_s),
            percent(one.received.hour),
            one.message,
        )
        for one in found
    ]
    return heads, rows


def _print_why(found: WhyView) -> None:
    from midstep.cli.output import clock, columns, counted, print_table

    lacks = found.devices_wanted != found.devices_now and found.state not in (
        "completed",
        "failed",
        "cancelled",
    )
    shall = f", shall have {found.devices_wanted}" if lacks else ""
    print(f"{found.name or found.job_id} is {found.state}, with {counted(found.devices_now)}{shall}")
    if found.decisions:
        print()
        rows = [(clock(one.at_s), one.action, one.reason, one.message) for one in found.decisions]
        print_table(columns("Since", "Decision", "Reason", "In words"), rows)
    if found.would_run_if:
        print("\nit would have its devices if")
        for line in found.would_run_if:
            print(f"  {line}")
