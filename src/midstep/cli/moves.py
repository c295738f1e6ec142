"""`midstep suspend`, `resume`, `migrate`, `resize`, `cancel`: ask, then show every phase as it happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import Exit, UsageError, guarded
from midstep.cli.output import counted

if TYPE_CHECKING:
    from midstep.client.fleet import FleetClient
    from midstep.client.types import JobView, MoveView

# Nobody's wish: they come about by themselves.
UNASKED = ("reconnect", "checkpoint", "recover", "copy-ahead", "hand-over")
SETTLED = ("running", "suspended", "completed", "failed", "cancelled")


def suspend(
    job: options.Job,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Stop a job in the middle of whatever it does, save it, free its devices."""
    guarded(
        lambda: _move(
            Asked("suspended", lambda f: f.suspend(job)), job, Manner(wait, timeout, state, as_json)
        )
    )


def resume(
    job: options.Job,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Let a suspended job go on, wherever there is room."""
    guarded(
        lambda: _move(Asked("running", lambda f: f.resume(job)), job, Manner(wait, timeout, state, as_json))
    )


def migrate(
    job: options.Job,
    to: Annotated[str, typer.Option(help="A node or a region.", autocompletion=options.complete_place)],
    copy_ahead: Annotated[
        bool,
        typer.Option(help="To another region: copy most of it while it runs, so that it stands still less."),
    ] = True,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Move a job to another node or region; it goes on at the instruction where it was."""
    guarded(
        lambda: _move(
            Asked("running", lambda f: f.migrate(job, to, copy_ahead), to),
            job,
            Manner(wait, timeout, state, as_json),
        )
    )


def resize(
    job: options.Job,
    devices: Annotated[
        int | None, typer.Option(min=1, help="How many, from 1 to the job's world size.", show_default=False)
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="As many as the scheduler sees fit, again.")] = False,
    to: Annotated[
        str,
        typer.Option(help="A node or region to move to as well.", autocompletion=options.complete_place),
    ] = "",
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Give a job more or fewer devices; its ranks share them, and its results do not change. It keeps the
    number until told otherwise."""
    if auto == (devices is not None):
        guarded(lambda: refuse("give either --devices N or --auto"))
    if auto:
        freed = Asked("running", lambda f: f.resize(job, None))
        guarded(lambda: _move(freed, job, Manner(False, timeout, state, as_json)))
    asked = Asked("running", lambda f: f.resize(job, devices, to or None), to, devices)
    guarded(lambda: _move(asked, job, Manner(wait, timeout, state, as_json)))


def refuse(words: str) -> int:
    """What was typed cannot be meant so."""
    raise UsageError(words)


def cancel(
    job: options.Job,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """End a job for good."""
    guarded(
        lambda: _move(Asked("cancelled", lambda f: f.cancel(job)), job, Manner(wait, timeout, state, as_json))
    )


class Asked:
    """A request, the state that it leads to, and the place and the number of devices if it names them."""

    def __init__(
        self, goal: str, ask: Callable[[FleetClient], JobView], place: str = "", devices: int | None = None
    ) -> None:
        self.goal = goal
        self.ask = ask
        self.place = place
        self.devices = devices

    def reached(self, view: JobView) -> bool:
        """It is so now, whoever has seen to it: another request may have been under way."""
        there = self.place in ("", view.region) or all(rank.node == self.place for rank in view.ranks)
        size = self.devices is None or view.devices_now == self.devices
        return view.state == self.goal and there and size

    def given_up(self, view: JobView) -> bool:
        """It shall have another number of devices now: the move failed, or somebody asked for another."""
        return self.devices is not None and view.devices_wanted != self.devices


class Manner:
    """How to wait for it and report it."""

    def __init__(self, wait: bool, timeout_s: float | None, state: Path | None, as_json: bool) -> None:
        self.wait = wait
        self.timeout_s = timeout_s
        self.state = state
        self.json = as_json


def _move(asked: Asked, job: str, manner: Manner) -> int:
    from midstep.cli.output import print_json, say

    with options.connect(manner.state) as fleet:
        before = fleet.job(job)
        news = News(fleet, before, quiet=manner.json)
        view = asked.ask(fleet)
        if asked.devices is not None and not view.devices_now:  # it gets them at its next start
            manner.wait = False
        if manner.wait:
            fleet.be_patient(60.0)
            view = fleet.wait(view.job_id, lambda v: settled(before, v, asked), manner.timeout_s, news.show)
            news.show(view)
        if manner.json:
            print_json(view)
        elif not manner.wait:
            size = "" if asked.devices is None else f" and shall have {counted(view.devices_wanted)}"
            why = f" ({view.reason})" if view.reason else ""
            say(f"{view.name or view.job_id} is {view.state}{size}{why}")
        return _verdict(before, view, asked, manner) if manner.wait else Exit.OK


def settled(before: JobView, view: JobView, asked: Asked) -> bool:
    """What was asked for has come true, or has come to nothing."""
    if view.state not in SETTLED:
        return False
    if view.state in ("completed", "failed", "cancelled") or asked.reached(view):
        return True
    if asked.devices is not None:
        return asked.given_up(view) or view.state == "suspended"
    # Running or suspended: it came to nothing only if something has been tried since the request.
    return bool(_new_moves(before, view, asked.place))


def _new_moves(before: JobView, view: JobView, place: str = "") -> list[MoveView]:
    """What was tried since. A reconnection is not what anybody asks for: it follows a move that was rolled
    back. A move that was under way counts, unless what was asked for comes after it (to another place)."""
    past = before.moves if before.state in SETTLED or place else before.moves[:-1]
    known = {(m.kind, m.started_s) for m in past}
    return [m for m in view.moves if (m.kind, m.started_s) not in known and m.kind not in UNASKED]


class News:
    """Prints what happens to a job from now on: each event once, on standard error."""

    def __init__(self, fleet: FleetClient, before: JobView, quiet: bool) -> None:
        self._fleet = fleet
        self._job = before.job_id
        self._quiet = quiet
        known = [] if quiet else fleet.events(job=self._job)
        self._last = known[-1].number if known else 0

    def show(self, _: JobView) -> None:
        """Print the new ones."""
        if self._quiet:
            return
        from midstep.cli.output import clock, duration, say, size

        for event in self._fleet.events(job=self._job, after=self._last):
            self._last = event.number
            cost = "  ".join(
                part for part in (duration(event.duration_s), size(event.nbytes or None)) if part
            )
            say(f"{clock(event.at_s)}  {event.node:<10}  {event.message}{f'  {cost}' if cost else ''}")


def _verdict(before: JobView, view: JobView, asked: Asked, manner: Manner) -> int:
    from midstep.cli.output import duration, say, size

    named = view.name or view.job_id
    moves = _new_moves(before, view, asked.place)
    failed = [m for m in moves if not m.ok]
    if asked.reached(view):
        cost = (
            f" in {duration(sum(m.duration_s for m in moves))}, {size(max(m.nbytes for m in moves))}"
            if moves
            else ""
        )
        if not manner.json:
            size_now = "" if asked.devices is None else f" on {counted(asked.devices)}"
            where = f"{size_now} in {view.region}" if view.region else ""
            say(f"{named} is {view.state}{where}{cost}")
        return Exit.OK
    reason = failed[-1].message if failed else view.failure or view.reason
    kept = "moved" if asked.devices is None else "resized"
    what = f"is {view.state}, not {asked.goal}" if view.state != asked.goal else f"was not {kept} and goes on"
    say(f"midstep: {named} {what}{f': {reason}' if reason else ''}")
    return Exit.JOB_FAILED if view.state == "failed" else Exit.CONFLICT
