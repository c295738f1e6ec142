"""The command line as a user meets it when something is missing or mistyped. With a fleet: tests/fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "up",
    "down",
    "doctor",
    "run",
    "submit",
    "suspend",
    "resume",
    "migrate",
    "cancel",
    "pull",
    "ps",
    "show",
    "top",
    "logs",
    "nodes",
    "events",
    "why",
    "queue",
    "quota",
    "cordon",
    "uncordon",
    "drain",
    "version",
]


def midstep(*words: str, state: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MIDSTEP_STATE": str(state), **more}
    argv = [sys.executable, "-m", "midstep.cli", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_command_and_loads_little(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['midstep', '--help']\n"
        "from midstep.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = ('httpx', 'pydantic', 'yaml', 'torch', 'fastapi', 'rich.table')\n"
        "print('LOADED', [m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(tmp_path: Path, name: str) -> None:
    done = midstep(name, "--help", state=tmp_path)
    assert done.returncode == 0
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    "words",
    [("ps",), ("nodes",), ("logs", "j"), ("suspend", "j"), ("run", "--", "true"), ("events",), ("pull", "j")],
)
def test_without_a_fleet(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = midstep(*words, state=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"there is no fleet in {tmp_path}" in done.stderr
    assert "`midstep up`" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_for_scripts(tmp_path: Path) -> None:
    done = midstep("ps", "--json", state=tmp_path)
    problem = json.loads(done.stderr)
    assert (problem["exit"], problem["code"]) == (3, "NoFleet")


def test_a_fleet_that_does_not_answer(tmp_path: Path) -> None:
    content = {"url": "http://127.0.0.1:9", "token": "t", "fleet": "f"}
    (tmp_path / "client.json").write_text(json.dumps(content))
    done = midstep("ps", state=tmp_path)
    assert done.returncode == 3
    assert "the fleet at http://127.0.0.1:9 does not answer" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("run",),
        ("run", "--devices", "0", "--", "true"),
        ("run", "--tier", "gold", "--", "true"),
        ("run", "--unknown", "--", "true"),
        ("submit", "no-such-file.yaml"),
        ("run", "--workdir", "/no/such/folder", "--", "true"),
        ("migrate", "j"),
    ],
)
def test_usage_errors(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "client.json").write_text(
        json.dumps({"url": "http://127.0.0.1:9", "token": "t", "fleet": "f"})
    )
    done = midstep(*words, state=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_have_no_traceback_unless_asked_for(tmp_path: Path) -> None:
    script = "from midstep.cli.exits import guarded\ndef fail(): raise KeyError('oops')\nguarded(fail)"
    for debug, traceback in (("", False), ("1", True)):
        env = {**os.environ, "MIDSTEP_DEBUG": debug}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
        )
        assert ("Traceback" in done.stderr) is traceback
        assert done.returncode == (1 if traceback else 70)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = (
        "from midstep.cli.exits import guarded\n"
        "def flood():\n    for _ in range(100_000): print('x' * 100)\n"
        "guarded(flood)"
    )
    argv = ["sh", "-c", f'{sys.executable} -c "$0" | head -1', script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("x" * 100 + "\n", "")


def test_completion_is_quiet_without_a_fleet(tmp_path: Path) -> None:
    done = midstep(
        state=tmp_path, _MIDSTEP_COMPLETE="complete_bash", COMP_WORDS="midstep show ", COMP_CWORD="2"
    )
    assert done.stdout.strip() == ""
    assert "Traceback" not in done.stderr
