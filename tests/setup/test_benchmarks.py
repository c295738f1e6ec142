"""The benchmark runner: figures beside their bars, one file, an exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmarks.__main__ as runner
from benchmarks.registry import Benchmark, Skip, choose


def make(
    name: str, *runs: float, bar: float = 1.0, better: str = "lower", error: Exception | None = None
) -> Benchmark:
    def measure() -> list[float]:
        if error is not None:
            raise error
        return list(runs)

    return Benchmark(name, bar, "x", "the rival", better, measure)  # type: ignore[arg-type]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "build" / "bench.json")
    return tmp_path / "build" / "bench.json"


def test_figures_are_medians_and_held_against_their_bars(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = [
        make("a-low", 0.5, 0.9, 3.0),
        make("b-high", 4.0, bar=5.0, better="higher"),
        make("c", error=Skip("no GPU")),
    ]
    monkeypatch.setattr(runner, "collect", lambda: every)
    assert runner.main([]) == 1
    rows = {row["name"]: row for row in json.loads(results.read_text())}
    assert [rows["a-low"][key] for key in ("value", "bar", "holds", "unit")] == [0.9, 1.0, True, "x"]
    assert (rows["b-high"]["holds"], rows["c"]["holds"], rows["c"]["note"]) == (
        False,
        None,
        "skipped: no GPU",
    )
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert runner.main(["a-low", "c"]) == 0
    assert len(json.loads(results.read_text())) == 3
    assert runner.main(["nonsense"]) == 2


def test_a_failure_is_a_row_too(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "collect", lambda: [make("a", error=RuntimeError("broke")), make("b", 0.1)])
    assert runner.main([]) == 1
    assert [row["holds"] for row in json.loads(results.read_text())] == [False, True]


def test_names_or_their_beginnings_choose() -> None:
    every = [make("step-25m"), make("step-100k"), make("cut"), make("cut-10s")]
    assert [item.name for item in choose(every, ["step"])] == ["step-25m", "step-100k"]
    assert [item.name for item in choose(every, ["cut"])] == ["cut"]
    with pytest.raises(ValueError, match="there are: step-25m"):
        choose(every, ["foo"])
