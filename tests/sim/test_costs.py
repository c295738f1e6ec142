"""Calibration files, and what the costs in them do."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.sim.catalogue import prepare
from midstep.sim.costs import STATED, Costs, read_costs
from midstep.sim.errors import CostsError
from tests.sim.build import fleet, job, trace

WHOLE = """\
machine: 2 cores
suspend_s: 0.5
resume_s: 0.75
start_s: 4
start_device_s: 1.5
splice: {2: 1.03, 4: 1.1}
state_bytes: 3.0e8
region_bytes_per_s: 12500000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_what_is_left_out_is_as_stated(tmp_path: Path) -> None:
    read = read_costs(written(tmp_path, WHOLE))
    assert (read.suspend_s, read.resume_s, read.machine) == (0.5, 0.75, "2 cores")
    assert read.resize_across_s == STATED.resize_across_s == 25.0
    assert [read.spliced(n) for n in (1, 2, 3, 4, 8)] == [1.0, 1.03, 1.1, 1.1, 1.1]
    assert [STATED.spliced(n) for n in (1, 2, 8)] == [1.0, 1.03, 1.03]
    assert read.transfer_s(2, regions=True) == pytest.approx(48)
    assert read.transfer_s(2, regions=False) == pytest.approx(0.24)
    assert read_costs(written(tmp_path, "splice: 1.5")).spliced(2) == 1.5


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "suspend_s: 0.5",
            "suspend_s: -1",
            "c.yaml:2:12: suspend_s: expected a number of 0 or more, got '-1'",
        ),
        ("suspend_s: 0.5", "suspend_s: 1e9", "c.yaml:2:12: suspend_s: expected"),
        ("suspend_s:", "suspends_s:", "c.yaml:2:1: there is no field 'suspends_s' in a calibration: did you"),
        ("2: 1.03", "two: 1.03", "splice: expected ranks a device, from 2 to 64, got 'two'"),
        ("4: 1.1", "4: 0.5", "c.yaml:6:22: 4: expected a number of 1 or more, got '0.5'"),
        ("machine: 2 cores", "machine: [2]", "c.yaml:1:10: machine: expected one value"),
        ("resume_s: 0.75", "suspend_s: 1", "c.yaml:3:1: suspend_s is given twice"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in WHOLE
    with pytest.raises(CostsError) as caught:
        read_costs(written(tmp_path, WHOLE.replace(old, new)))
    assert says in str(caught.value)


def test_every_first_start_costs() -> None:
    jobs = [job("long", 0, 100, 8), job("short", 40, 10, 8)]
    outcome = prepare(fleet(1), trace(*jobs), "srtf", costs=Costs(start_s=4, start_device_s=0.5)).run()
    # 8 s to come up the first time, nothing when it goes on (but 30 s that srtf counts for stopping it).
    (long, short) = outcome.records
    assert (long.stops, short.end_s - short.first_s) == (1, 8 + 10 + 1)
    assert long.end_s == 8 + 100 + 30 + (short.end_s - short.first_s) + 1
    assert long.lost_device_s == 8 * (8 + 30)
