"""`midstep logs`, and reading the output of several ranks side by side."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import UsageError, guarded
from midstep.cli.output import pause

if TYPE_CHECKING:
    from midstep.client.fleet import FleetClient
    from midstep.client.types import JobView

POLL_S = 0.25
PIECE_BYTES = 1 << 20
PATIENCE_S = 60.0


def logs(
    job: options.Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", "-r", min=0, help="Only this one.", show_default="all")
    ] = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Print a job's output. With several ranks every line begins with its rank."""

    def work() -> int:
        with options.connect(state) as fleet:
            view = fleet.job(job)
            if rank is not None and rank >= view.world_size:
                raise UsageError(f"job {job} has no rank {rank}: its ranks are 0 to {view.world_size - 1}")
            ranks = list(range(view.world_size)) if rank is None else [rank]
            printer = Printer(fleet, view.job_id, ranks, as_json)
            printer.catch_up()
            if follow:
                fleet.be_patient(PATIENCE_S)
                follow_output(fleet, view, printer)
            printer.flush()
            return 0

    guarded(work)


def follow_output(fleet: FleetClient, view: JobView, printer: Printer) -> JobView:
    """Print what comes until the job has ended and all of it is printed, and on standard error why it does
    not run when it does not. Answers the job's last state."""
    told = ""
    while not has_ended(view):
        pause(POLL_S)
        view = fleet.job(view.job_id)
        printer.catch_up()
        standing = view.state if not view.stalls else "stalled"
        if standing != told and view.reason and standing in ("queued", "suspended", "stalled"):
            print(
                f"midstep: {view.name or view.job_id} is {standing}: {view.reason}",
                file=sys.stderr,
                flush=True,
            )
        told = standing
    printer.catch_up()
    return view


def has_ended(view: JobView) -> bool:
    """Nothing will happen to the job any more."""
    from midstep.model.lifecycle import JobState

    return view.state in {state.value for state in JobState if state.ended}


class Printer:
    """Prints the output of some ranks line by line, each byte once. (A job that goes on from an older
    snapshot writes again what it wrote then: that was printed already.)"""

    def __init__(self, fleet: FleetClient, job: str, ranks: list[int], as_json: bool = False) -> None:
        self._fleet = fleet
        self._job = job
        self._offsets = dict.fromkeys(ranks, 0)
        self._rests = dict.fromkeys(ranks, "")
        self._json = as_json
        self._width = len(str(max(ranks, default=0)))

    def catch_up(self) -> None:
        """Print what is there now."""
        for rank in self._offsets:
            while self._read(rank):
                pass
        sys.stdout.flush()

    def flush(self) -> None:
        """Print lines that have no end yet."""
        for rank, rest in self._rests.items():
            if rest:
                self._print(rank, rest, "\n" if len(self._rests) > 1 or self._json else "")
            self._rests[rank] = ""
        sys.stdout.flush()

    def _read(self, rank: int) -> bool:
        """One piece; True: there may be more."""
        offset = self._offsets[rank]
        view = self._fleet.logs(self._job, rank, offset, PIECE_BYTES)
        self._offsets[rank] = view.next_offset
        if not view.text:
            return False
        if len(self._rests) == 1 and not self._json:
            sys.stdout.write(view.text)  # as it is: also progress bars, which never end a line
            return True
        *lines, self._rests[rank] = (self._rests[rank] + view.text).split("\n")
        for line in lines:
            self._print(rank, line)
        return True

    def _print(self, rank: int, line: str, end: str = "\n") -> None:
        if self._json:
            from midstep.cli.output import print_json

            print_json({"rank": rank, "line": line})
        elif len(self._rests) > 1:
            sys.stdout.write(f"{rank:>{self._width}} | {line}{end}")
        else:
            sys.stdout.write(f"{line}{end}")
