"""Starts an embedded fleet in a folder of its own, runs the plays, compares, stops the fleet. Exit status 1:
a digit differs.

usage: python -m midstep.app.demo [--seed N] [--keep]
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from rich.console import Console

from midstep.app.demo.plays import PLAYS, Outcome, Play, disturbed, examples_folder, request, undisturbed
from midstep.app.demo.table import differences, show_losses, show_moves
from midstep.client.errors import ClientError
from midstep.client.fleet import FleetClient
from midstep.client.workdir import pack, scan


def main() -> int:
    """0: every digit equal; 1: not."""
    parser = argparse.ArgumentParser(prog="midstep demo")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10_000), help="chooses the moments of the cuts"
    )
    parser.add_argument("--keep", action="store_true", help="leave the fleet running, to look around")
    args = parser.parse_args()
    console = Console()
    console.print(
        f"[bold]Midstep demo[/] (seed {args.seed}): jobs cut in the middle of a step, moved, and compared"
    )
    started = time.monotonic()
    console.print("undisturbed runs first: plain torchrun with gloo, no Midstep ...")
    calm = [undisturbed(play) for play in PLAYS]
    state = Path(tempfile.mkdtemp(prefix="midstep-demo-"))
    try:
        _midstep("up", "--regions", "2", "--nodes", "1", "--devices", "3", "--state", str(state))
        moved = _perform(console, state, args.seed)
    except ClientError as error:
        console.print(f"[red]the demo stopped:[/] {error}")
        return 1
    finally:
        if args.keep:
            console.print(f"the fleet stays: export MIDSTEP_STATE={state}; midstep ps; midstep down --purge")
        else:
            _midstep("down", "--now", "--purge", "--state", str(state))
            shutil.rmtree(state, ignore_errors=True)
    return _judge(console, calm, moved, time.monotonic() - started)


def _perform(console: Console, state: Path, seed: int) -> list[Outcome]:
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
    with FleetClient.of_state(state) as fleet:
        blob = fleet.upload(*pack(scan(examples_folder())))
        jobs = [fleet.submit(request(play, blob, env)) for play in PLAYS]

        def follow(index: int) -> Outcome:
            with FleetClient.of_state(state) as own:
                return disturbed(PLAYS[index], own, jobs[index], Random(seed + index), console.print)

        with ThreadPoolExecutor(len(PLAYS)) as threads:
            return list(threads.map(follow, range(len(PLAYS))))


def _judge(console: Console, calm: list[Outcome], moved: list[Outcome], seconds: float) -> int:
    together: list[tuple[Play, Outcome]] = list(zip(PLAYS, moved, strict=True))
    for (play, ours), theirs in zip(together, calm, strict=True):
        show_losses(console, play, theirs, ours)
    show_moves(console, together)
    found = [
        f"{play.script}: {line}"
        for (play, ours), theirs in zip(together, calm, strict=True)
        for line in differences(theirs, ours)
    ]
    compared = sum(len(outcome.losses) for outcome in calm)
    moves = sum(len(play.moves) for play in PLAYS)
    if found:
        console.print(f"[red bold]DIFFERENT[/] in {len(found)} places:", *found[:20], sep="\n  ")
        return 1
    console.print(
        f"[green bold]EQUAL[/]: {compared} losses and {len(PLAYS)} sets of final weights, in every digit, "
        f"after {moves} moves in the middle of a step ({seconds:.0f} s in all)"
    )
    return 0


def _midstep(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "midstep.cli", *words], check=words[0] == "up")


if __name__ == "__main__":
    raise SystemExit(main())
