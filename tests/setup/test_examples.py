"""The examples know nothing of Midstep, run by themselves and under torchrun, and repeat themselves to the
last digit.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
LM = ["lm.py", "--d-model", "32", "--layers", "1", "--length", "32", "--batch", "4"]
DIGITS = ["digits.py", "--width", "4", "--batch", "32"]


def run(command: list[str], folder: Path) -> list[str]:
    """Standard output's lines, from a run in an empty folder with no trace of Midstep's."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MIDSTEP", "PYTHONPATH"))
    }
    words = [str(EXAMPLES / word) if (EXAMPLES / word).is_file() else word for word in command]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # torchrun's workers, if it was stuck
    assert process.returncode == 0, errors[-2000:]
    return output.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_an_example_says_nothing_of_midstep(path: Path) -> None:
    assert "midstep" not in path.read_text().lower()


SOAK = pytest.mark.soak  # the fleet's tests run these, too


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        ([*TORCHRUN, *LM, "--steps", "4"], 4),
        pytest.param(
            [*TORCHRUN, *DIGITS, "--epochs", "2", "--persistent-workers", "--steps", "6"], 6, marks=SOAK
        ),
        pytest.param([sys.executable, *DIGITS, "--steps", "4"], 4, marks=SOAK),
        ([sys.executable, "plain.py", "--steps", "4", "--batch", "16"], 4),
        (["sh", "pipeline.sh", "5", "500"], 5),
        (["perl", "count.pl", "5", "500"], 5),
    ],
    ids=["lm-2", "digits-2", "digits-1", "plain", "pipeline", "count"],
)
def test_two_runs_print_the_same(command: list[str], steps: int, tmp_path: Path) -> None:
    first, second = run(command, tmp_path), run(command, tmp_path)
    assert first == second
    assert [line.split()[1] for line in first if line.startswith("step ")] == [
        str(step) for step in range(steps)
    ]
    assert re.match(r"weights sha256 [0-9a-f]{64}$|end sum \d+$", first[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_the_language_model_learns_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    quick = [*LM, "--dropout", "0"]
    whole = run([sys.executable, *quick, "--steps", "12"], tmp_path)
    losses = [float(line.split()[3]) for line in whole if line.startswith("step ")]
    assert losses[-1] < losses[0]
    saving = [sys.executable, *quick, "--checkpoint", "saved.pt", "--every", "4"]
    run([*saving, "--steps", "8"], tmp_path)
    rest = run([*saving, "--steps", "12", "--log", "losses.txt"], tmp_path)
    assert rest == whole[8:]
    assert (tmp_path / "losses.txt").read_text().splitlines() == rest
