"""Tables and figures for people."""

from __future__ import annotations

import os
import sys

import pytest

from midstep.cli.output import columns, duration, pause, print_plain, size


def test_plain_tables_have_a_word_in_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_plain(columns("Name", ">Count"), [("a", "1"), ("longer", "")])
    assert capsys.readouterr().out == "NAME    COUNT\na           1\nlonger      -\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0032, "3.2 ms"),
        (4.11, "4.1 s"),
        (119, "119.0 s"),
        (720, "12 min"),
        (11100, "3 h 05 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (4_500_000, "4.5 MB")]
)
def test_sizes(nbytes: int | None, text: str) -> None:
    assert size(nbytes) == text


def test_following_ends_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        pause(0.01)
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            pause(60.0)
