"""The promise: whatever is done to a job, every loss digit and the final weights are those of the undisturbed
run.

Buys: the examples, at 1, 2 and 4 ranks, cut at random moments and moved between devices, nodes and regions.
`make test` cuts one of them a few times; `make soak` all, at least 20 times each. SEED in the environment
repeats a failure.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from midstep.client.errors import Conflict
from midstep.client.types import JobView
from tests.fleet.harness import ENDED, Fleet

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = int(os.environ.get("SEED", time.time_ns() % 100_000))
MOVES = ("suspend", "suspend", "other node", "other region")


@dataclass(frozen=True)
class Case:
    """An example with arguments; its number of ranks; how long it runs undisturbed is measured."""

    command: tuple[str, ...]
    ranks: int = 1

    @property
    def name(self) -> str:
        return f"{self.command[-1] if len(self.command) == 1 else self.command[0]}-{self.ranks}"

    def launched(self, torchrun: tuple[str, ...]) -> list[str]:
        """As a user types it."""
        if self.ranks > 1:
            return [*torchrun, f"--nproc_per_node={self.ranks}", *self.command]
        return [*(["python"] if self.command[0].endswith(".py") else []), *self.command]


LM = ("lm.py", "--d-model", "64", "--length", "64", "--batch", "4", "--steps")
DIGITS = ("digits.py", "--width", "8", "--batch", "32", "--workers", "2", "--steps")
CASES = [
    Case((*LM, "60")),
    Case((*LM, "60"), 2),
    Case((*LM, "60"), 4),
    Case((*DIGITS, "60")),
    Case((*DIGITS, "60"), 2),
    Case((*DIGITS, "60", "--persistent-workers"), 4),
    Case(("plain.py",)),
    Case(("./pipeline.sh",)),
    Case(("./count.pl",)),
]
A_FEW = [case for case in CASES if case.ranks == 2 and "digits.py" in case.name]


@functools.cache
def undisturbed(case: Case) -> str:
    """The same command without Midstep: torchrun with gloo. Only 2 ranks and 1 have the same bits there: a
    sum of more has another order in gloo's ring than along our tree."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        case.launched(torchrun),
        cwd=EXAMPLES,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return results(done.stdout)


def results(text: str) -> str:
    """What the examples compute, without what libraries say on standard error (the rank's log has both)."""
    words = ("step ", "end ", "weights ", "accuracy ", "history ")
    return "\n".join(line for line in text.splitlines() if line.startswith(words))


def disturb(fleet: Fleet, job: JobView, chance: Random, cuts: int) -> int:
    """Move a job ``cuts`` times, or until it ends; how often it was."""
    for done in range(cuts):
        time.sleep(chance.uniform(0.1, 1.0))
        move = chance.choice(MOVES)
        with fleet.client() as client:
            view = client.job(job.job_id)
        if view.state in ENDED:
            return done
        try:
            perform(fleet, job, view, move)
        except (AssertionError, Conflict):
            with fleet.client() as client:
                if client.job(job.job_id).state != "completed":  # it may end while it is asked to move
                    raise
            return done
    return cuts


def perform(fleet: Fleet, job: JobView, view: JobView, move: str) -> None:
    """One move."""
    if move == "other region":
        fleet.migrate(job, "south" if view.region == "north" else "north")
    elif move == "suspend" or view.world_size > 2:  # four ranks fill both nodes of a region
        fleet.suspend(job)
        fleet.resume(job)
    else:
        here = view.ranks[0].node
        fleet.migrate(job, f"{view.region}-{2 if here.endswith('1') else 1}")


def run_to_the_end(fleet: Fleet, case: Case, cuts: int) -> tuple[str, int]:
    """The output of rank 0, and how often the job was cut."""
    launched = case.launched(("torchrun",))
    job = fleet.run(*launched, files=EXAMPLES, region="north")
    if cuts:
        fleet.until_logs(job, "step ")
    cut = disturb(fleet, job, Random(f"{SEED}{case}"), cuts)
    fleet.wait(job, "completed", timeout_s=240)
    return results(fleet.logs(job)), cut


@functools.cache
def calm(fleet: Fleet, case: Case) -> str:
    """The results of a case that nobody disturbs."""
    return undisturbed(case) if case.ranks <= 2 else run_to_the_end(fleet, case, 0)[0]


def check(fleet: Fleet, case: Case, cuts: int, at_least: int) -> None:
    """Disturbed as often as asked, by as many jobs as it takes, and equal each time."""
    done = 0
    while done < at_least:
        text, cut = run_to_the_end(fleet, case, cuts)
        assert text == calm(fleet, case), f"differs after {cut} cuts: SEED={SEED} repeats the moments"
        done += max(cut, 1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", A_FEW, ids=lambda case: case.name)
def test_moved_a_few_times(fleet: Fleet, case: Case) -> None:
    check(fleet, case, cuts=2, at_least=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_moved_twenty_times(fleet: Fleet, case: Case) -> None:
    check(fleet, case, cuts=20, at_least=20)
