"""`midstep run --follow`: the job as if it ran here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midstep.cli.exits import Exit
from midstep.cli.logs import PATIENCE_S, Printer, follow_output
from midstep.cli.output import age, print_json, say

if TYPE_CHECKING:
    from midstep.client.fleet import FleetClient
    from midstep.client.types import JobView
    from midstep.client.workdir import Listing


def follow_to_end(fleet: FleetClient, view: JobView, listing: Listing | None, as_json: bool) -> int:
    """Print its output, then bring its files back. Answers its exit code. Interrupted: the job goes on, which
    is said."""
    named = view.name or view.job_id
    say(f"midstep: job {named} ({view.job_id})")
    fleet.be_patient(PATIENCE_S)
    printer = Printer(fleet, view.job_id, list(range(view.world_size)))
    try:
        view = follow_output(fleet, view, _Silent() if as_json else printer)
    except KeyboardInterrupt:
        say(f"\nmidstep: {named} goes on; `midstep logs -f {named}` follows it, `midstep cancel` ends it")
        return Exit.INTERRUPTED
    if not as_json:
        printer.flush()
    if listing is not None:
        _bring_back(fleet, view, listing)
    if as_json:
        print_json(view)
    return _outcome(view, named)


class _Silent(Printer):
    def __init__(self) -> None:
        pass

    def catch_up(self) -> None:
        """The output is not printed where JSON is wanted: `midstep logs` has it."""


def _bring_back(fleet: FleetClient, view: JobView, listing: Listing) -> None:
    from midstep.client.errors import NotFound
    from midstep.client.pull import pull

    try:
        pulled = pull(
            fleet,
            view.job_id,
            listing.root,
            listing.unchanged,
            lambda path: not listing.ignore.anywhere(path),
            drop_copies=True,
        )
    except NotFound:
        return  # it ended before it had any files
    if pulled.written:
        say(f"midstep: changed: {', '.join(pulled.written[:8])}{_more(len(pulled.written) - 8)}")
    if pulled.kept:
        names = ", ".join(pulled.kept[:8]) + _more(len(pulled.kept) - 8)
        say(f"midstep: not brought back, because you changed them meanwhile: {names}")
        say(f"  `midstep pull {view.job_id} FOLDER` gets the job's")


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _outcome(view: JobView, named: str) -> int:
    took = age(view.started_s, view.ended_s) if view.started_s and view.ended_s else ""
    say(f"midstep: job {named} {view.state}{f' after {took}' if took else ''}")
    if view.state == "completed":
        return Exit.OK
    if view.failure:
        say(f"  {view.failure}")
    return view.exit_code or Exit.JOB_FAILED
