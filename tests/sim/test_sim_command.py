"""`midstep sim` from end to end: its files, its words, and that they are the same every time."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from midstep.sim.sweep import Case, cases, labels
from tests.sim.build import DATA

FLEET = """\
regions: [{name: r, clusters: [{name: philly, nodes: [{count: 16, devices: 8, device_type: gpu}]}]}]
"""
NAMES = ("fifo", "las", "midstep")
TABLES = (*(f"jobs-{name}" for name in NAMES), "runs")


def sim(*words: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "midstep.cli", "sim", *words]
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=240)


def words(folder: Path, out: str, *more: str) -> list[str]:
    (folder / "fleet.yaml").write_text(FLEET)
    files = ["--report", str(folder / f"{out}.html"), "--tables", str(folder / out)]
    chosen = ["--group", "2869ce", "--until", "5200000", *more]
    return [str(DATA / "philly_sc21_4vc.parquet"), "--fleet", str(folder / "fleet.yaml"), *files, *chosen]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    folder = tmp_path_factory.mktemp("sim")
    (folder / "costs.yaml").write_text("start_s: 3")
    policies = [word for name in NAMES for word in ("--policy", name)]
    policies += ["--calibration", str(folder / "costs.yaml"), "--mtbf-hours", "300", "--failure-shape", "0.8"]
    runs = [
        sim(*words(folder, "one", *policies, "--workers", "1"), hash_seed="1"),
        sim(*words(folder, "two", *policies, "--workers", "2"), hash_seed="2"),
    ]
    return folder, runs


def test_it_works(twice: tuple[Path, list[subprocess.CompletedProcess[str]]]) -> None:
    for run in twice[1]:
        assert run.returncode == 0, run.stderr
        assert [line.split()[0] for line in run.stdout.splitlines()] == ["RUN", *NAMES]


def test_same_inputs_same_bytes(twice: tuple[Path, list[subprocess.CompletedProcess[str]]]) -> None:
    """Whatever the hash seed, and however many processes."""
    folder = twice[0]
    assert (folder / "one.html").read_bytes() == (folder / "two.html").read_bytes()
    names = sorted(path.name for path in (folder / "one").iterdir())
    assert names == [f"{n}.{kind}" for n in TABLES for kind in ("csv", "parquet")]
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_the_report_needs_nothing_else(twice: tuple[Path, list[subprocess.CompletedProcess[str]]]) -> None:
    page = (twice[0] / "one.html").read_text()
    assert not re.findall(r"<(?:script|link|img|iframe)|@import|src=|url\((?!#)", page)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert page.count("<svg") == page.count("</svg>") == 4 + 2 * len(NAMES)
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
            if tag in ("table", "tr", "td", "th", "div", "figure", "svg", "g", "h1", "h2"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if opened and tag == opened[-1]:
                opened.pop()

    Balance().feed(page)
    assert opened == []


def test_the_tables_agree_with_each_other(twice: tuple[Path, list[subprocess.CompletedProcess[str]]]) -> None:
    folder = twice[0] / "one"
    runs = {row["policy"]: row for row in csv.DictReader((folder / "runs.csv").open())}
    for policy, run in runs.items():
        jobs = list(csv.DictReader((folder / f"jobs-{policy}.csv").open()))
        assert len(jobs) == int(run["jobs"])
        mean = sum(int(row["jct_s"]) for row in jobs) / len(jobs)
        assert mean == pytest.approx(float(run["jct_mean_s"]), abs=0.01)
        assert sum(int(row["stops"]) for row in jobs) == int(run["stops"])
        assert sum(int(row["cuts"]) for row in jobs) == int(run["cuts"]) > 0
        for tier, least in (("premium", 0.95), ("standard", 0.7)):
            own = [row for row in jobs if row["tier"] == tier]
            own = [row for row in own if not row["without_guarantee"]]
            hours, lives = ([float(row[f"{name}_fraction"]) for row in own] for name in ("hour", "life"))
            assert len(own) == int(run[f"guaranteed_{tier}"])
            assert sum(value < least for value in hours) == int(run[f"under_hour_{tier}"])
            assert sum(value < least for value in lives) == int(run[f"under_life_{tier}"])
            assert min(hours) == float(run[f"worst_hour_{tier}"])
            assert bool(run[f"first_shortfall_{tier}"]) == (int(run[f"under_hour_{tier}"]) > 0)
    assert int(runs["las"]["stops"]) > 0 == int(runs["fifo"]["stops"])
    assert float(runs["fifo"]["idle_fit_share"]) > float(runs["las"]["idle_fit_share"])


def test_errors_are_the_users(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("devices", "device"))
    (tmp_path / "t.csv").write_text("job_id,submit_s,duration_s,gpus\na,1,5,1000\nb,1,5,8\n")
    trace, fleet = str(tmp_path / "t.csv"), str(tmp_path / "fleet.yaml")
    run = sim(trace, "--fleet", fleet)
    assert (
        run.returncode == 2
        and "fleet.yaml:1:67: there is no field 'device' in nodes: did you mean devices?" in run.stderr
    )
    (tmp_path / "fleet.yaml").write_text(FLEET)
    run = sim(trace, "--fleet", fleet, "--policy", "sfj", "--json")
    assert run.returncode == 2 and run.stdout == ""
    assert json.loads(run.stderr)["error"] == "there is no policy 'sfj': did you mean sjf?"
    run = sim(trace, "--fleet", fleet, "--repair-hours", "3")
    assert run.returncode == 2 and "--failure-shape need --mtbf-hours, or `failures`" in run.stderr
    (tmp_path / "costs.yaml").write_text("suspend_s: soon")
    run = sim(trace, "--fleet", fleet, "--calibration", str(tmp_path / "costs.yaml"))
    assert run.returncode == 2 and "costs.yaml:1:12: suspend_s: expected a number" in run.stderr
    run = sim(trace, "--fleet", fleet)
    assert run.returncode == 0
    assert "not admitted: 1 job: asks for 1000 devices; at most 128 can be had" in run.stderr


def test_a_sweep_is_each_with_each() -> None:
    chosen = cases(["fifo", "sjf"], ["consolidate"], [1.0, 1.5], [7])
    assert chosen[1] == Case("fifo", "consolidate", 1.5, 7)
    assert labels(chosen) == ["fifo, load 1", "fifo, load 1.5", "sjf, load 1", "sjf, load 1.5"]
