"""`midstep cordon`, `uncordon`, `drain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from midstep.cli import options
from midstep.cli.exits import Exit, guarded
from midstep.cli.output import pause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from midstep.client.fleet import FleetClient
    from midstep.client.types import DrainView, NodeView

POLL_S = 0.5
Node = Annotated[str, typer.Argument(help="A node.", autocompletion=options.complete_node)]


def cordon(node: Node, state: options.State = None, as_json: options.Json = False) -> None:
    """Place nothing new on a node; what runs there stays."""
    guarded(lambda: _change(lambda fleet: fleet.cordon(node), state, as_json, f"{node} takes nothing new"))


def uncordon(node: Node, state: options.State = None, as_json: options.Json = False) -> None:
    """Let a node take jobs again."""
    guarded(lambda: _change(lambda fleet: fleet.uncordon(node), state, as_json, f"{node} takes jobs again"))


def drain(
    node: Node,
    deadline: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds, after which what is left is suspended.", show_default="none"),
    ] = None,
    wait: options.Wait = True,
    timeout: options.Timeout = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Move everything off a node, while it runs; afterwards the node is cordoned."""

    def work() -> int:
        from midstep.cli.output import print_json, say

        with options.connect(state) as fleet:
            view = fleet.drain(node, deadline)
            if wait:
                fleet.be_patient(60.0)
                view = _follow(fleet, view, timeout, quiet=as_json)
        left = len(view.moved)
        if as_json:
            print_json(view)
        elif view.done:
            say(f"{node} is empty, and cordoned ({left} job{'' if left == 1 else 's'} left it)")
        else:
            _say_left(view)
        return Exit.OK if view.done or not wait else Exit.TIMEOUT

    guarded(work)


def _change(ask: Callable[[FleetClient], NodeView], state: Path | None, as_json: bool, words: str) -> int:
    from midstep.cli.output import print_json, say

    with options.connect(state) as fleet:
        view = ask(fleet)
    if as_json:
        print_json(view)
    else:
        say(words)
    return 0


def _follow(fleet: FleetClient, view: DrainView, timeout_s: float | None, quiet: bool) -> DrainView:
    """Until the node is empty, or the time is over; each change is said once."""
    import time

    from midstep.cli.output import say

    said: dict[str, str] = {}
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        for one in view.left:
            words = f"{one.name or one.job_id} {one.state}: {one.reason}"
            if not quiet and said.get(one.job_id) != words:
                said[one.job_id] = words
                say(words)
        if view.done or (end_s is not None and time.monotonic() >= end_s):
            return view
        pause(POLL_S)
        view = fleet.drained(view.node)


def _say_left(view: DrainView) -> None:
    from midstep.cli.output import say

    say(f"{len(view.left)} jobs are still on {view.node}; it goes on (see `midstep drain {view.node}`)")
    for one in view.left:
        say(f"  {one.name or one.job_id} {one.state}: {one.reason}")
