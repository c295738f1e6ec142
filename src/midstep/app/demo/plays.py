"""The jobs of the demo, what is done to them, and how they are run undisturbed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView

ENDED = ("completed", "failed", "cancelled")
STEP = re.compile(r"^step (\d+) loss (\S+)$", re.MULTILINE)
WEIGHTS = re.compile(r"^weights sha256 (\w+)$", re.MULTILINE)
BOUND_S = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Play:
    """A script of `examples/`, its ranks, and the moves it is put through, at these shares of its steps."""

    title: str
    script: str
    arguments: tuple[str, ...]
    ranks: int
    steps: int
    moves: tuple[tuple[float, str], ...]  # (share of the steps, "suspend" or the region to go to)


PLAYS = (
    Play(
        "language model, DDP, 2 ranks",
        "lm.py",
        ("--steps", "70"),
        2,
        70,
        ((0.2, "suspend"), (0.45, "south"), (0.7, "north")),
    ),
    Play(
        "digits, 2 DataLoader workers",
        "digits.py",
        ("--steps", "220", "--workers", "2", "--persistent-workers"),
        1,
        220,
        ((0.15, "south"), (0.5, "suspend")),
    ),
)


@dataclass(slots=True)
class Outcome:
    """What a run printed: every loss as text, digit by digit, and the hash of the final weights."""

    losses: dict[int, str] = field(default_factory=dict[int, str])
    weights: str = ""
    job: JobView | None = None
    cuts: list[str] = field(default_factory=list[str])

    @classmethod
    def read(cls, text: str) -> Outcome:
        """From a log."""
        weights = WEIGHTS.search(text)
        return cls({int(n): loss for n, loss in STEP.findall(text)}, weights.group(1) if weights else "")


def examples_folder() -> Path:
    """`examples/` of the checkout; SystemExit where there is none (an installed wheel)."""
    folder = Path(__file__).resolve().parents[4] / "examples"
    if not (folder / "lm.py").exists():
        raise SystemExit(
            "the demo needs the repository's examples/ folder: run it from a checkout, `make demo`"
        )
    return folder


def undisturbed(play: Play) -> Outcome:
    """The same script under plain torchrun with gloo: no Midstep anywhere."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={play.ranks}",
    ]
    command = [*(launcher if play.ranks > 1 else [sys.executable]), play.script, *play.arguments]
    done = subprocess.run(
        command, cwd=examples_folder(), capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    if done.returncode:
        raise SystemExit(f"{play.script} fails without Midstep already:\n{done.stderr[-2000:]}")
    return Outcome.read(done.stdout)


def request(play: Play, blob: str, env: dict[str, str]) -> JobRequest:
    """The same command as a user would type it after `midstep run --devices N --`."""
    command = ("torchrun", f"--nproc_per_node={play.ranks}", play.script, *play.arguments)
    plain = ("python", play.script, *play.arguments)
    name = Path(play.script).stem
    told = command if play.ranks > 1 else plain
    # The moves begin in the north, wherever there would be more room.
    return JobRequest(command=told, name=name, env=env, workdir_blob=blob, region="north")


def disturbed(play: Play, fleet: FleetClient, job: JobView, chance: Random, say: Say) -> Outcome:
    """Follow a job and put it through its moves, each at a random moment within a step."""
    cuts: list[str] = []
    for share, move in play.moves:
        step = _wait_for_step(fleet, job, int(play.steps * share) + chance.randrange(5))
        _somewhere_within_a_step(chance)
        cuts.append(f"{move} in step {step + 1}")
        say(f"[bold]{job.name}[/]: {_words(move)} in the middle of step {step + 1}")
        _do(fleet, job, move, say)
    final = fleet.wait(job.job_id, lambda view: view.state in ENDED, BOUND_S)
    outcome = Outcome.read(_whole_log(fleet, job.job_id))
    outcome.job, outcome.cuts = final, cuts
    return outcome


def _do(fleet: FleetClient, job: JobView, move: str, say: Say) -> None:
    if move != "suspend":
        before = len(fleet.job(job.job_id).moves)
        fleet.migrate(job.job_id, move, copy_ahead=False)  # while it runs on, such a short job would end
        fleet.wait(job.job_id, lambda v: v.state in ENDED or _arrived(v, move, before), BOUND_S)
        say(f"[bold]{job.name}[/]: runs again in region {move}")
        return
    fleet.suspend(job.job_id)
    view = fleet.wait(job.job_id, lambda v: v.state in (*ENDED, "suspended"), BOUND_S)
    say(f"[bold]{job.name}[/]: suspended, {view.snapshot_bytes / 1e6:.0f} MB, its devices are free")
    fleet.resume(job.job_id)
    fleet.wait(job.job_id, lambda v: v.state in (*ENDED, "running"), BOUND_S)
    say(f"[bold]{job.name}[/]: runs again")


def _arrived(view: JobView, region: str, moves_before: int) -> bool:
    return view.state == "running" and view.region == region and len(view.moves) > moves_before


def _wait_for_step(fleet: FleetClient, job: JobView, wanted: int) -> int:
    """The newest step printed, once ``wanted`` is; SystemExit when the job ends before."""
    offset, text = 0, ""

    def reached(view: JobView) -> bool:
        nonlocal offset, text
        piece = fleet.logs(job.job_id, 0, offset)
        offset, text = piece.next_offset, text + piece.text
        if view.state in ENDED:
            raise SystemExit(
                f"{job.name} ended ({view.state}) before step {wanted}:\n" + "\n".join(view.last_lines)
            )
        return _last_step(text) >= wanted

    fleet.wait(job.job_id, reached, BOUND_S)
    return _last_step(text)


def _last_step(text: str) -> int:
    steps = STEP.findall(text)
    return int(steps[-1][0]) if steps else -1


def _somewhere_within_a_step(chance: Random) -> None:
    subprocess.run(["sleep", f"{chance.uniform(0.0, 0.2):.3f}"], check=True)


def _whole_log(fleet: FleetClient, job_id: str) -> str:
    text, offset = "", 0
    while (piece := fleet.logs(job_id, 0, offset)).next_offset > offset:
        text, offset = text + piece.text, piece.next_offset
    return text


def _words(move: str) -> str:
    return "suspend" if move == "suspend" else f"migrate to region {move}"
