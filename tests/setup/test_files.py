"""The files that set a machine up: exact, free of this or that machine, and in step with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def test_the_lock_holds_exact_versions_and_no_place() -> None:
    wrong = [line for line in PINS if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9A-Za-z.]*", line)]
    assert not wrong, f"requirements.lock: {wrong}; write it with `make lock`"
    assert "torch==2.13.0" in PINS


def test_everything_that_pyproject_asks_for_is_locked() -> None:
    wanted = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["dev"],
        *PROJECT["optional-dependencies"]["node"],
    ]
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in wanted} - {"midstep"}
    missing = sorted(names - {pin.partition("==")[0] for pin in PINS})
    assert not missing, f"not in requirements.lock: {missing}; run `make lock`"


def test_what_the_zoo_asks_for_is_locked_apart() -> None:
    lines = (ROOT / "requirements-zoo.lock").read_text().splitlines()
    more = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    wanted = {re.split(r"[<>=!~ ]", line)[0].lower() for line in PROJECT["optional-dependencies"]["zoo"]}
    assert wanted <= more, f"not in requirements-zoo.lock: {sorted(wanted - more)}; run `make lock`"
    assert not more & {pin.partition("==")[0] for pin in PINS}


def test_make_says_what_it_does() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"setup", "demo", "test", "check", "bench", "soak", "gpu", "clean"} <= targets


def test_continuous_integration_calls_make_test() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"


def test_setup_is_sound_shell() -> None:
    subprocess.run(["bash", "-n", "scripts/setup.sh"], cwd=ROOT, check=True)
