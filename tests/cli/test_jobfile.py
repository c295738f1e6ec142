"""Job files: what they may say, and what is said about those that say something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.cli.exits import UsageError
from midstep.cli.job import JobFile
from midstep.cli.jobfile import read


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_all_fields(tmp_path: Path) -> None:
    text = """
command: [python, train.py, --lr, 0.1]
name: small
devices: 2
ranks: 4
tier: premium
kind: serve
device_type: cpu-1c
env: {A: 1, B: two, C: true}
workdir: src
threads: 3
region: north
node: north-1
"""
    assert read(written(tmp_path, text)) == JobFile(
        command=["python", "train.py", "--lr", "0.1"],
        workdir=tmp_path / "src",
        name="small",
        devices=2,
        ranks=4,
        tier="premium",
        kind="serve",
        device_type="cpu-1c",
        env={"A": "1", "B": "two", "C": "true"},
        threads=3,
        region="north",
        node="north-1",
    )


def test_a_part_of_a_device(tmp_path: Path) -> None:
    assert read(written(tmp_path, "command: x\ndevices: 0.25")).devices == 0.25
    assert read(written(tmp_path, "command: x\ndevices: 2.0")).devices == 2


def test_a_command_may_be_a_line(tmp_path: Path) -> None:
    assert read(written(tmp_path, "command: python -c 'print(1, 2)'")).command == [
        "python",
        "-c",
        "print(1, 2)",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "command: x\ndevices: two",
            "job.yaml:2:10: devices: expected a whole number of 1 or more, or a part of one device: 0.5, got",
        ),
        ("command: x\ndevices: 0", "a whole number of 1 or more, or a part of one device: 0.5, got '0'"),
        ("command: x\ndevices: 1.5", "a whole number of 1 or more, or a part of one device: 0.5, got '1.5'"),
        ("command: x\ndevices: -0.5", "or a part of one device: 0.5, got '-0.5'"),
        ("command: x\ndevices: true", "or a part of one device: 0.5, got 'true'"),
        ("command: x\nranks: true", "job.yaml:2:8: ranks: expected a whole number"),
        (
            "command: x\ntier: gold",
            "job.yaml:2:7: tier: expected one of premium, standard, basic, got 'gold'",
        ),
        ("command: x\ndevicse: 2", "job.yaml:2:1: there is no field 'devicse': did you mean devices?"),
        ("command: x\nqwerty: 2", "expected one of command, workdir"),
        ("command: x\nname: a\nname: b", "job.yaml:3:1: name is given twice"),
        ("command: x\nenv: [a]", "job.yaml:2:6: env: expected names with values"),
        ("command: []", "job.yaml:1:10: command: expected a command line"),
        ("command: 'a \"b'", "job.yaml:1:10: command: expected a command line (No closing quotation)"),
        ("name: x", "job.yaml:1:1: there is no command"),
        ("", "job.yaml:1:1: expected fields"),
        ("- a", "job.yaml:1:1: expected fields"),
        ("command: [x\nname: y", "job.yaml:2:5: not YAML"),
        ("command: x\n\tname: y", "job.yaml:2:1: not YAML"),
        ("command: !!python/object/apply:os.system [ls]", "job.yaml:1:10: command:"),
    ],
)
def test_mistakes_are_located(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(written(tmp_path, text))
    assert complaint in str(caught.value)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(written(tmp_path, "devices: a\nranks: b\nfoo: c"))
    assert str(caught.value).count("job.yaml:") == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.yaml")
