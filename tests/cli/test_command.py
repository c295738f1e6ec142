"""What a job runs, and what of the submitter's environment goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.cli.command import environment, full_command
from midstep.cli.exits import UsageError


def with_program(folder: Path, name: str) -> dict[str, str]:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_python_file_runs_under_python(tmp_path: Path) -> None:
    assert full_command(["train.py", "--lr", "1"], with_program(tmp_path, "python")) == (
        "python",
        "train.py",
        "--lr",
        "1",
    )


def test_or_under_python3_where_there_is_no_python(tmp_path: Path) -> None:
    assert full_command(["a/train.py"], with_program(tmp_path, "python3")) == ("python3", "a/train.py")


def test_no_python_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no python on PATH"):
        full_command(["train.py"], {"PATH": str(tmp_path)})


def test_other_commands_stay_as_they_are() -> None:
    assert full_command(["torchrun", "--nproc-per-node", "2", "t.py"], {})[0] == "torchrun"


def test_nothing_is_no_command() -> None:
    with pytest.raises(UsageError, match="no command"):
        full_command([], {})


def test_only_what_finds_programs_is_captured() -> None:
    here = {"PATH": "/bin", "LC_ALL": "C", "SECRET": "s", "SSH_AUTH_SOCK": "x", "VIRTUAL_ENV": "/v", "A": "1"}
    assert environment(["A", "B=2=3", "PATH=/other"], here) == {
        "PATH": "/other", "LC_ALL": "C", "VIRTUAL_ENV": "/v", "A": "1", "B": "2=3"}  # fmt: skip


@pytest.mark.parametrize("pair", ["=x", "", "MISSING"])
def test_variables_that_cannot_be_meant(pair: str) -> None:
    with pytest.raises(UsageError):
        environment([pair], {"PATH": "/bin"})
